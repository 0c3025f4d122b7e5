//! One value for each namespace.

use std::ops::{AddAssign, Index, IndexMut};

use serde::{Deserialize, Serialize};

use crate::ports::Namespace;

/// The namespaces in the order in which they are compared.
pub const NAMESPACES: [Namespace; 2] = [Namespace::Settings, Namespace::QueryConfigs];

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Each<T>([T; NAMESPACES.len()]);

impl<T> Each<T> {
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<Namespace> for Each<T> {
    type Output = T;

    fn index(&self, namespace: Namespace) -> &T {
        &self.0[namespace as usize]
    }
}

impl<T> IndexMut<Namespace> for Each<T> {
    fn index_mut(&mut self, namespace: Namespace) -> &mut T {
        &mut self.0[namespace as usize]
    }
}

impl<T: AddAssign> AddAssign for Each<T> {
    fn add_assign(&mut self, other: Self) {
        for (value, more) in self.0.iter_mut().zip(other.0) {
            *value += more;
        }
    }
}
