//! Reads a parsed TOML document into a `serde` type, and knows at every moment where it is.
//!
//! Why not the deserializer of the `toml` crate: it reports an unknown key only for types that ask for it, as a sentence that
//! would have to be taken apart again, and without the path. The document is the crate's; only the walk over it is ours.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// What is wrong, and where.
#[derive(Debug)]
pub(super) struct Error {
    /// Dotted path of the key.
    pub(super) key: String,
    /// Byte of the document.
    pub(super) at: Option<usize>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Unknown { valid: &'static [&'static str] },
    Missing,
    Value(String),
}

/// Reads a whole document.
pub(super) fn read<T: DeserializeOwned>(document: DeTable<'_>) -> Result<T, Error> {
    T::deserialize(Node { path: String::new(), at: None, value: &DeValue::Table(document) })
}

impl Error {
    fn value(message: impl fmt::Display) -> Error {
        Error { key: String::new(), at: None, kind: Kind::Value(message.to_string()) }
    }

    /// Gives an error that comes from a value its place, unless it comes from deeper inside and has one.
    fn within(mut self, path: &str, at: Option<usize>) -> Error {
        if self.at.is_none() {
            self.at = at;
            self.key = match self.kind {
                Kind::Missing => join(path, &self.key),
                _ => path.to_owned(),
            };
        }
        self
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.key, self.kind)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error::value(message)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Error::value(format_args!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Error::value(format_args!("expected {expected}, found {found}"))
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Error::value(match super::nearest(found, expected) {
            Some(nearest) => format!("unknown value {found:?}; did you mean {nearest:?}?"),
            None => format!("unknown value {found:?}; valid here: {}", expected.join(", ")),
        })
    }

    fn unknown_field(found: &str, valid: &'static [&'static str]) -> Self {
        Error { key: found.to_owned(), at: None, kind: Kind::Unknown { valid } }
    }

    fn missing_field(name: &'static str) -> Self {
        Error { key: name.to_owned(), at: None, kind: Kind::Missing }
    }
}

/// A value of the document and its place; the root has an empty path and no place.
struct Node<'a> {
    path: String,
    at: Option<usize>,
    value: &'a DeValue<'a>,
}

impl<'a> Node<'a> {
    fn new(path: String, value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        Node { path, at: Some(value.span().start), value: value.get_ref() }
    }

    fn visit<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Node { path, value, .. } = self;
        match value {
            DeValue::Table(table) => {
                visitor.visit_map(Entries { path: &path, entries: table.iter(), next: None })
            }
            DeValue::Array(array) => visitor.visit_seq(Elements { path: &path, array, next: 0 }),
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Boolean(value) => visitor.visit_bool(*value),
            DeValue::Integer(value) => {
                let (digits, radix) = (value.as_str(), value.radix());
                if let Ok(value) = u64::from_str_radix(digits, radix) {
                    visitor.visit_u64(value)
                } else if let Ok(value) = i64::from_str_radix(digits, radix) {
                    visitor.visit_i64(value)
                } else {
                    Err(Error::value(format_args!("the number {value} is too large")))
                }
            }
            DeValue::Float(value) => match value.as_str().parse() {
                Ok(value) => visitor.visit_f64(value),
                Err(_) => Err(Error::value(format_args!("{value} is not a number"))),
            },
            DeValue::Datetime(_) => {
                Err(Error::value("a date is not expected here; put a text into quotation marks"))
            }
        }
    }

    /// Reads the value; whatever is wrong with it, wherever that is noticed, gets its place here.
    fn read<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        let (path, at) = (self.path.clone(), self.at);
        seed.deserialize(self).map_err(|error| error.within(&path, at))
    }
}

impl<'de> de::Deserializer<'de> for Node<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor)
    }

    /// A key that is there has a value: TOML has no null.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// The one place that knows every valid key before the first is read.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        valid: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let DeValue::Table(table) = self.value else {
            let found = self.value.type_str();
            return Err(Error::value(format_args!("expected a table, found a value of type {found}")));
        };
        let unknown = table.keys().filter(|key| !valid.contains(&key.get_ref().as_ref()));
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            let at = Some(key.span().start);
            return Err(Error { key: join(&self.path, key.get_ref()), at, kind: Kind::Unknown { valid } });
        }
        self.visit(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(Variant(self))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// A table.
struct Entries<'a, I> {
    path: &'a str,
    entries: I,
    next: Option<Node<'a>>,
}

impl<'a, 'de, I> MapAccess<'de> for Entries<'a, I>
where
    I: Iterator<Item = (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)>,
{
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        let path = join(self.path, key.get_ref());
        let name: StrDeserializer<'_, Error> = key.get_ref().as_ref().into_deserializer();
        let parsed = seed.deserialize(name).map_err(|error| error.within(&path, Some(key.span().start)))?;
        self.next = Some(Node::new(path, value));
        Ok(Some(parsed))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.next.take() {
            Some(node) => node.read(seed),
            None => Err(Error::value("the value of a key was read twice")),
        }
    }
}

/// An array; its elements are called `key[0]`, `key[1]`, ...
struct Elements<'a> {
    path: &'a str,
    array: &'a DeArray<'a>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(value) = self.array.get(self.next) else { return Ok(None) };
        let node = Node::new(format!("{}[{}]", self.path, self.next), value);
        self.next += 1;
        node.read(seed).map(Some)
    }
}

/// An enum without fields, written as a string.
struct Variant<'a>(Node<'a>);

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = UnitOnly;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, UnitOnly), Error> {
        let DeValue::String(text) = self.0.value else {
            return Err(Error::value("expected a string"));
        };
        let name: StrDeserializer<'_, Error> = text.as_ref().into_deserializer();
        Ok((seed.deserialize(name)?, UnitOnly))
    }
}

struct UnitOnly;

impl UnitOnly {
    fn refuse<T>() -> Result<T, Error> {
        Err(Error::value("a variant with fields can't be written in a configuration file"))
    }
}

impl<'de> VariantAccess<'de> for UnitOnly {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Self::refuse()
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Self::refuse()
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Self::refuse()
    }
}
