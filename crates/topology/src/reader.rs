//! Walks a [`Json`] value and knows at every step where it is.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

use crate::duration;
use crate::error::{Invalid, Problem};
use crate::ids::{ChainAddress, HexError, parse_hex};
use crate::json::Json;

/// Where a value stands, as a chain of stack frames: nothing is allocated unless something is wrong.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// Something is wrong here.
    pub(crate) fn invalid(&self, problem: impl Into<Problem>) -> Invalid {
        Invalid { path: self.to_string(), problem: problem.into() }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("top level"),
            Self::Field(parent, name) => {
                if !matches!(parent, Self::Root) {
                    write!(f, "{parent}.")?;
                }
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if !name.is_empty() && name.len() <= 64 && name.chars().all(plain) {
                    f.write_str(name)
                } else {
                    // Whoever wrote the document does not get to write to the reader's terminal.
                    write!(f, "{:?}", excerpt(name, 64))
                }
            }
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// The beginning of a text, for an error message.
pub(crate) fn excerpt(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

/// A value and its place.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    path: Path<'a>,
    value: &'a Json,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(value: &'a Json) -> Self {
        Self { path: Path::Root, value }
    }

    pub(crate) fn path(&self) -> &Path<'a> {
        &self.path
    }

    pub(crate) fn value(&self) -> &'a Json {
        self.value
    }

    fn kind_error(&self, expected: &'static str) -> Invalid {
        self.path.invalid(Problem::Kind { expected, found: self.value.kind() })
    }

    /// The object here, which must have no other fields than these.
    pub(crate) fn object(&self, fields: &'static [&'static str]) -> Result<Object<'_>, Invalid> {
        let object = self.object_of_any_fields()?;
        match object.entries.keys().find(|name| !fields.contains(&name.as_str())) {
            None => Ok(object),
            Some(unknown) => Err(Path::Field(&self.path, unknown).invalid(unknown_field(unknown, fields))),
        }
    }

    /// The object here, its field names unchecked.
    pub(crate) fn object_of_any_fields(&self) -> Result<Object<'_>, Invalid> {
        match self.value {
            Json::Object(entries) => Ok(Object { path: &self.path, entries }),
            _ => Err(self.kind_error("an object")),
        }
    }

    /// The entries of the array here, which has at most `limit`.
    pub(crate) fn array(&self, limit: usize) -> Result<impl ExactSizeIterator<Item = Reader<'_>>, Invalid> {
        let Json::Array(items) = self.value else {
            return Err(self.kind_error("an array"));
        };
        if items.len() > limit {
            return Err(self.path.invalid(Problem::TooMany { limit, found: items.len() }));
        }
        let path = &self.path;
        Ok(items
            .iter()
            .enumerate()
            .map(move |(index, value)| Reader { path: Path::Index(path, index), value }))
    }

    pub(crate) fn string(&self) -> Result<&'a str, Invalid> {
        match self.value {
            Json::String(string) => Ok(string),
            _ => Err(self.kind_error("a string")),
        }
    }

    pub(crate) fn integer(&self) -> Result<u64, Invalid> {
        match self.value {
            Json::Integer(integer) => Ok(*integer),
            _ => Err(self.kind_error("a number")),
        }
    }

    /// A number that must fit a narrower type; `max` is what the message states.
    pub(crate) fn narrow<T>(&self, min: T, max: T) -> Result<T, Invalid>
    where
        T: TryFrom<u64> + fmt::Display,
    {
        let integer = self.integer()?;
        T::try_from(integer).map_err(|_| {
            self.path.invalid(Problem::Range {
                min: min.to_string(),
                max: max.to_string(),
                found: integer.to_string(),
            })
        })
    }

    /// `N` bytes in hexadecimal.
    pub(crate) fn hex<const N: usize>(&self) -> Result<[u8; N], Invalid> {
        parse_hex(self.string()?).map_err(|error| self.path.invalid(error))
    }

    /// An address on a chain.
    pub(crate) fn chain_address(&self) -> Result<ChainAddress, Invalid> {
        self.string()?.parse().map_err(|error: HexError| self.path.invalid(error))
    }

    pub(crate) fn duration(&self) -> Result<Duration, Invalid> {
        duration::parse(self.string()?).map_err(|error| self.path.invalid(error))
    }
}

/// The fields of an object and its place.
pub(crate) struct Object<'a> {
    path: &'a Path<'a>,
    entries: &'a BTreeMap<String, Json>,
}

impl<'a> Object<'a> {
    pub(crate) fn required(&self, name: &'static str) -> Result<Reader<'a>, Invalid> {
        self.optional(name).ok_or_else(|| Path::Field(self.path, name).invalid(Problem::Missing))
    }

    pub(crate) fn optional(&self, name: &'static str) -> Option<Reader<'a>> {
        self.entries.get(name).map(|value| Reader { path: Path::Field(self.path, name), value })
    }
}

/// Names the nearest valid field, if one is near enough to have been meant, else all of them.
fn unknown_field(unknown: &str, fields: &'static [&'static str]) -> Problem {
    // The distance takes time in the product of the lengths; no field is longer than 64 bytes.
    let unknown = excerpt(unknown, 64);
    let nearest = fields.iter().map(|field| (strsim::damerau_levenshtein(&unknown, field), *field)).min();
    match nearest {
        Some((distance, field)) if distance <= 2.max(field.len() / 3) => Problem::UnknownNear(field),
        _ => {
            let names: Vec<_> = fields.iter().map(|field| format!("`{field}`")).collect();
            Problem::Unknown(names.join(", "))
        }
    }
}
