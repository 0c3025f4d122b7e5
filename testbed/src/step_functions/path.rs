//! Paths into a state's input and into the context object: `$.a.b`, `$.a[0].b`, `$$.Execution.Id`.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// A path. Filters, wildcards and slices are not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    context: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
}

impl Path {
    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unknown = || format!("{text}: not a path that the stand-in knows");
        let (context, mut rest) = match (text.strip_prefix("$$"), text.strip_prefix('$')) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(unknown()),
        };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let step = if let Some(field) = rest.strip_prefix('.') {
                let end = field.find(['.', '[']).unwrap_or(field.len());
                let (name, left) = field.split_at(end);
                rest = left;
                let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
                (!name.is_empty() && name.chars().all(plain)).then(|| Step::Field(name.to_owned()))
            } else {
                let index = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                let (index, left) = index.ok_or_else(unknown)?;
                rest = left;
                index.parse().ok().map(Step::Index)
            };
            steps.push(step.ok_or_else(unknown)?);
        }
        Ok(Self { context, steps })
    }

    /// What the path leads to.
    pub fn find<'a>(&self, input: &'a Value, context: &'a Value) -> Option<&'a Value> {
        let root = if self.context { context } else { input };
        self.steps.iter().try_fold(root, |value, step| match step {
            Step::Field(name) => value.get(name),
            Step::Index(index) => value.get(index),
        })
    }

    /// Puts a result there. Objects on the way are made.
    pub fn put(&self, mut input: Value, result: Value) -> Value {
        let mut place = &mut input;
        for step in &self.steps {
            // `is_reference` has excluded indexes.
            let Step::Field(name) = step else { continue };
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[name.as_str()];
        }
        *place = result;
        input
    }

    /// Whether a result can be put there.
    pub fn is_reference(&self) -> bool {
        !self.context && self.steps.iter().all(|step| matches!(step, Step::Field(_)))
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A path that a result is put at.
pub fn reference<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Path>, D::Error> {
    let path = Path::deserialize(deserializer)?;
    if path.is_reference() {
        return Ok(Some(path));
    }
    Err(D::Error::custom("a result can't be put at this path"))
}

/// An object or value in which fields whose names end in `.$` are paths.
#[derive(Debug, Clone)]
pub enum Template {
    Value(Value),
    Path(Path),
    Object(Vec<(String, Template)>),
}

impl Template {
    /// The value that it makes; the path that leads nowhere if there is one.
    pub fn fill(&self, input: &Value, context: &Value) -> Result<Value, Path> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::Path(path) => path.find(input, context).cloned().ok_or_else(|| path.clone()),
            Self::Object(fields) => {
                let filled = fields.iter();
                filled
                    .map(|(name, field)| Ok((name.clone(), field.fill(input, context)?)))
                    .collect()
            }
        }
    }

    fn read(value: Value) -> Result<Self, String> {
        let Value::Object(fields) = value else {
            // Paths inside of arrays would go unnoticed.
            let plain = !value.is_array();
            return plain.then_some(Self::Value(value)).ok_or_else(|| "an array".to_owned());
        };
        let fields = fields.into_iter().map(|(name, value)| {
            match (name.strip_suffix(".$"), value.as_str()) {
                (Some(name), Some(path)) => Ok((name.to_owned(), Self::Path(Path::parse(path)?))),
                (Some(name), None) => Err(format!("{name}.$ is not a string")),
                (None, _) => Ok((name, Self::read(value)?)),
            }
        });
        fields.collect::<Result<_, _>>().map(Self::Object)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
