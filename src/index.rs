//! What both sides of the exporter speak of: an index of an account.

use std::fmt;

/// The name that the account's defaults take in the place of an index's.
const DEFAULT_CONFIG: &str = "DEFAULT_CONFIG";

/// An index, by account and name. Orders by account, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexRef {
    /// `system_account_id`, not empty.
    pub account: String,
    /// `index_name`, not empty, without `#`.
    pub name: String,
}

impl IndexRef {
    /// An index, unless the name can't be one: empty, `DEFAULT_CONFIG`, or with a `#`.
    pub fn parse(account: &str, name: &str) -> Option<Self> {
        let valid = !account.is_empty()
            && !name.is_empty()
            && name != DEFAULT_CONFIG
            && !name.contains('#');
        valid.then(|| Self { account: account.to_owned(), name: name.to_owned() })
    }

    /// `{system_account_id}-{index_name}`: the index id, which is also a KV key.
    pub fn index_id(&self) -> String {
        format!("{}-{}", self.account, self.name)
    }

    /// Every index that an index id can mean: account and name may both hold dashes.
    pub fn all_with_id(index_id: &str) -> impl Iterator<Item = Self> + '_ {
        index_id
            .match_indices('-')
            .filter_map(|(dash, _)| Self::parse(&index_id[..dash], &index_id[dash + 1..]))
    }
}

/// An item that is exported: an index, or one of its query configs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemName {
    pub index: IndexRef,
    /// `normalized_query`, if the item is a query config.
    pub query: Option<String>,
}

impl From<IndexRef> for ItemName {
    fn from(index: IndexRef) -> Self {
        Self { index, query: None }
    }
}

impl fmt::Display for IndexRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_id_with_several_dashes_can_mean_several_indexes() {
        let all = |id| IndexRef::all_with_id(id).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(all("a-b-c"), ["a/b-c", "a-b/c"]);
        assert_eq!(all("a--c"), ["a/-c", "a-/c"]);
        assert!(all("-a").is_empty() && all("a-").is_empty() && all("a").is_empty());
        assert!(all("a-b-c").iter().all(|index| index.replace('/', "-") == "a-b-c"));
    }
}
