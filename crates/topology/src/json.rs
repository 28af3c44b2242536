//! JSON of the kind that can be signed: strings, whole numbers, arrays and objects without duplicate fields.
//!
//! Two steps, so that every complaint can name its path: `serde_json` reads whatever is JSON, keeping
//! duplicates and unwanted kinds; the conversion to [`Json`] refuses them.

use core::cell::Cell;
use core::fmt;
use std::collections::BTreeMap;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::error::{DocumentError, Invalid, Problem};
use crate::reader::Path;

/// 2^53 - 1: the greatest integer that every JSON implementation reads exactly (RFC 8785, section 3.2.2.3).
pub(crate) const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Values of any kind in one document. Bounds the memory that a small text such as `[0,0,0,…` can claim; a
/// full document needs about ten per node.
const MAX_VALUES: u32 = 1_000_000;

/// A value that has exactly one canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    String(String),
    /// At most [`MAX_INTEGER`] when read; the writer does not check.
    Integer(u64),
    Array(Vec<Json>),
    /// Sorted by field name.
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// Reads a text.
    pub(crate) fn parse(text: &str) -> Result<Self, DocumentError> {
        let budget = Cell::new(MAX_VALUES);
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let raw = RawSeed(&budget)
            .deserialize(&mut deserializer)
            .and_then(|raw| deserializer.end().map(|()| raw))
            .map_err(|error| DocumentError::Json(error.to_string()))?;
        Ok(raw.into_json(&Path::Root)?)
    }

    /// An object of the given fields.
    pub(crate) fn object<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// A string of whatever can be displayed.
    pub(crate) fn text(value: impl fmt::Display) -> Self {
        Self::String(value.to_string())
    }

    /// The kind, with its article, for error messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "a number",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Anything that is JSON.
enum Raw {
    Null,
    Bool,
    /// Any number that is not an integer from 0 to 2^64 - 1.
    OtherNumber,
    Integer(u64),
    String(String),
    Array(Vec<Raw>),
    Object(Vec<(String, Raw)>),
}

impl Raw {
    fn into_json(self, path: &Path<'_>) -> Result<Json, Invalid> {
        let refuse = |found| Problem::Kind { expected: "a string, a number, an array or an object", found };
        Ok(match self {
            Self::Null => return Err(path.invalid(refuse("null"))),
            Self::Bool => return Err(path.invalid(refuse("true or false"))),
            Self::Integer(integer) if integer <= MAX_INTEGER => Json::Integer(integer),
            Self::Integer(_) | Self::OtherNumber => return Err(path.invalid(Problem::NotWhole)),
            Self::String(string) => Json::String(string),
            Self::Array(items) => Json::Array(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| item.into_json(&Path::Index(path, index)))
                    .collect::<Result<_, _>>()?,
            ),
            Self::Object(fields) => {
                let mut object = BTreeMap::new();
                for (name, value) in fields {
                    let path = Path::Field(path, &name);
                    if object.contains_key(&name) {
                        return Err(path.invalid(Problem::Duplicate));
                    }
                    let value = value.into_json(&path)?;
                    object.insert(name, value);
                }
                Json::Object(object)
            }
        })
    }
}

/// Reads a [`Raw`] and takes each of its values off the budget.
#[derive(Clone, Copy)]
struct RawSeed<'b>(&'b Cell<u32>);

impl<'de> DeserializeSeed<'de> for RawSeed<'_> {
    type Value = Raw;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| D::Error::custom(format!("more than {MAX_VALUES} values")))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RawSeed<'_> {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Bool)
    }

    fn visit_u64<E>(self, integer: u64) -> Result<Raw, E> {
        Ok(Raw::Integer(integer))
    }

    fn visit_i64<E>(self, integer: i64) -> Result<Raw, E> {
        Ok(u64::try_from(integer).map_or(Raw::OtherNumber, Raw::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::OtherNumber)
    }

    fn visit_str<E>(self, string: &str) -> Result<Raw, E> {
        Ok(Raw::String(string.to_owned()))
    }

    fn visit_string<E>(self, string: String) -> Result<Raw, E> {
        Ok(Raw::String(string))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Raw::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = map.next_key()? {
            fields.push((name, map.next_value_seed(self)?));
        }
        Ok(Raw::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Json::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn the_greatest_integer_is_two_to_the_53_less_one() {
        // Fails as well if somebody switches on serde_json's `arbitrary_precision`, under which numbers are
        // maps.
        assert_eq!(Json::parse("9007199254740991"), Ok(Json::Integer(MAX_INTEGER)));
        assert_eq!(
            refused("[9007199254740992]"),
            "top level[0]: expected a whole number from 0 to 9007199254740991, without fraction or exponent"
        );
    }

    #[test]
    fn numbers_with_more_than_one_spelling_are_refused() {
        for number in ["1.0", "1e3", "-1", "-0", "0.5", "18446744073709551616", "1e400"] {
            let error = refused(&format!("{{\"a\": [7, {number}]}}"));
            // 1e400 is out of range for serde_json itself.
            if number != "1e400" {
                assert_eq!(
                    error,
                    "a[1]: expected a whole number from 0 to 9007199254740991, without fraction or exponent"
                );
            }
        }
    }

    #[test]
    fn kinds_that_no_field_has_are_refused() {
        let expected = "a string, a number, an array or an object";
        assert_eq!(refused(r#"{"a":{"b":null}}"#), format!("a.b: expected {expected}, found null"));
        assert_eq!(refused(r#"{"a":[false]}"#), format!("a[0]: expected {expected}, found true or false"));
    }

    #[test]
    fn duplicates_are_refused_even_if_equal_or_spelt_differently() {
        assert_eq!(refused(r#"{"a":{"b":1,"b":1}}"#), "a.b: this field appears more than once: keep one");
        assert_eq!(
            refused(r#"{"a":[{"b":1,"\u0062":2}]}"#),
            "a[0].b: this field appears more than once: keep one"
        );
    }

    #[test]
    fn field_names_cannot_write_to_a_terminal() {
        let error = refused("{\"\\u001b[31m\": 0.5}");
        assert!(error.starts_with("\"\\u{1b}[31m\": expected"), "{error}");
        let error = refused(&format!("{{\"{}\": 0.5}}", "x".repeat(1000)));
        assert!(error.len() < 200, "{error}");
    }

    #[test]
    fn what_follows_the_value_is_refused() {
        assert_eq!(
            refused("{} {}"),
            "the network document is not valid JSON: trailing characters at line 1 column 4"
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let error = refused(&"[".repeat(1_000_000));
        assert!(error.contains("recursion limit exceeded"), "{error}");
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let error = refused(&format!("[{}0]", "0,".repeat(1_000_000)));
        assert!(error.contains("not valid JSON: more than 1000000 values"), "{error}");
        let full = format!("[{}0]", "0,".repeat(999_998));
        assert!(Json::parse(&full).is_ok());
    }
}
