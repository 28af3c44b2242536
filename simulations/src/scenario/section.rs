//! Reads one table of a scenario, and knows which keys it could have had.

use core::time::Duration;

use tombola_topology::duration;

use super::ScenarioError;
use crate::mixes::Delay;

/// One table. Every key that is asked for counts as known; what is left at the end is an error that names the nearest.
///
/// Keys that may be absent are asked for first, keys that have to be there last: then what is left is no key of this table,
/// and if a missing one is the nearest to it, the error says so.
#[derive(Debug)]
pub struct Section {
    path: String,
    table: toml::Table,
    known: Vec<&'static str>,
}

impl Section {
    /// A whole file.
    pub(super) fn root(table: toml::Table) -> Self {
        Self { path: String::new(), table, known: Vec::new() }
    }

    fn place(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An error at one of its keys.
    #[must_use]
    pub fn invalid(&self, key: &str, what: impl Into<String>) -> ScenarioError {
        ScenarioError::Invalid { place: self.place(key), what: what.into() }
    }

    /// The error that a key is not there: it may be misspelt.
    #[must_use]
    pub fn missing(&self, key: &str) -> ScenarioError {
        let meant = |left: &&String| nearest(left, &self.known) == Some(key);
        match self.table.keys().find(meant) {
            Some(left) => self.unknown(left),
            None => ScenarioError::Missing { place: self.place(key) },
        }
    }

    fn take(&mut self, key: &'static str) -> Option<toml::Value> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.remove(key)
    }

    /// A table inside that has to be there.
    ///
    /// # Errors
    /// It is not, or something else is.
    pub(super) fn required_section(&mut self, key: &'static str) -> Result<Self, ScenarioError> {
        let is_there = self.has(key);
        let section = self.section(key)?;
        if is_there { Ok(section) } else { Err(self.missing(key)) }
    }

    /// A table inside, empty if it is not there.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Self, ScenarioError> {
        let path = self.place(key);
        match self.take(key) {
            None => Ok(Self { path, table: toml::Table::new(), known: Vec::new() }),
            Some(toml::Value::Table(table)) => Ok(Self { path, table, known: Vec::new() }),
            Some(other) => Err(self.invalid(key, expected(&format!("a table `[{path}]`"), &other))),
        }
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// Something else is there.
    pub fn count(&mut self, key: &'static str) -> Result<Option<usize>, ScenarioError> {
        self.take(key).map(|value| self.as_count(key, &value)).transpose()
    }

    fn as_count(&self, key: &str, value: &toml::Value) -> Result<usize, ScenarioError> {
        let count = value.as_integer().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.invalid(key, expected("a whole number, not negative", value)))
    }

    /// As [`Section::count`], and above zero.
    ///
    /// # Errors
    /// Something else is there.
    pub fn at_least_one(&mut self, key: &'static str) -> Result<Option<usize>, ScenarioError> {
        match self.count(key)? {
            Some(0) => Err(self.invalid(key, "expected at least 1")),
            count => Ok(count),
        }
    }

    /// As [`Section::count`], and it has to be there.
    ///
    /// # Errors
    /// It is not, or something else is.
    pub fn required_count(&mut self, key: &'static str) -> Result<usize, ScenarioError> {
        self.count(key)?.ok_or_else(|| self.missing(key))
    }

    /// A whole number, or a list of them.
    pub(super) fn counts(&mut self, key: &'static str) -> Result<Option<Vec<usize>>, ScenarioError> {
        match self.take(key) {
            None => Ok(None),
            Some(toml::Value::Array(list)) => {
                list.iter().map(|value| self.as_count(key, value)).collect::<Result<_, _>>().map(Some)
            }
            Some(value) => Ok(Some(vec![self.as_count(key, &value)?])),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// Something else is there.
    pub fn number(&mut self, key: &'static str) -> Result<Option<f64>, ScenarioError> {
        self.take(key)
            .map(|value| match value {
                toml::Value::Float(number) => Ok(number),
                toml::Value::Integer(number) => Ok(number as f64),
                other => Err(self.invalid(key, expected("a number", &other))),
            })
            .transpose()
    }

    /// True or false.
    ///
    /// # Errors
    /// Something else is there, the text `"false"` included.
    pub fn flag(&mut self, key: &'static str) -> Result<Option<bool>, ScenarioError> {
        self.take(key)
            .map(|value| value.as_bool().ok_or_else(|| self.invalid(key, expected("true or false", &value))))
            .transpose()
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, ScenarioError> {
        self.take(key)
            .map(|value| match value {
                toml::Value::String(text) => Ok(text),
                other => Err(self.invalid(key, expected("a text", &other))),
            })
            .transpose()
    }

    /// One of these words.
    ///
    /// # Errors
    /// Something else is there; the error names the nearest.
    pub fn one_of(
        &mut self,
        key: &'static str,
        default: &'static str,
        words: &[&'static str],
    ) -> Result<&'static str, ScenarioError> {
        let Some(found) = self.text(key)? else { return Ok(default) };
        words.iter().copied().find(|word| *word == found).ok_or_else(|| {
            let near = nearest(&found, words).map(|word| format!("; did you mean \"{word}\"?"));
            let list: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
            let what = format!("expected {}, found \"{found}\"{}", list.join(", "), near.unwrap_or_default());
            self.invalid(key, what)
        })
    }

    /// A duration such as `"250ms"`.
    ///
    /// # Errors
    /// Something else is there.
    pub fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, ScenarioError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        duration::parse(&text).map(Some).map_err(|error| self.invalid(key, error.to_string()))
    }

    /// As [`Section::duration`], and above zero.
    ///
    /// # Errors
    /// Something else is there.
    pub fn interval(&mut self, key: &'static str) -> Result<Option<Duration>, ScenarioError> {
        match self.duration(key)? {
            Some(Duration::ZERO) => Err(self.invalid(key, "expected more than zero")),
            interval => Ok(interval),
        }
    }

    /// As [`Section::interval`], and it has to be there.
    ///
    /// # Errors
    /// It is not, or something else is.
    pub fn required_interval(&mut self, key: &'static str) -> Result<Duration, ScenarioError> {
        self.interval(key)?.ok_or_else(|| self.missing(key))
    }

    /// What is drawn: a duration alone, which `bare` gives a meaning, or a table with `constant`, `exponential`,
    /// `uniform`, or `constant` and `exponential` together.
    ///
    /// # Errors
    /// Something else is there.
    pub fn delay(
        &mut self,
        key: &'static str,
        bare: fn(Duration) -> Delay,
    ) -> Result<Option<Delay>, ScenarioError> {
        if !self.has(key) {
            return self.text(key).map(|_| None);
        }
        if self.table.get(key).is_some_and(toml::Value::is_str) {
            return Ok(self.duration(key)?.map(bare));
        }
        let mut inner = self.section(key)?;
        let parts = (inner.duration("constant")?, inner.duration("exponential")?, inner.duration("uniform")?);
        inner.finish()?;
        match parts {
            (Some(constant), None, None) => Ok(Some(Delay::Constant(constant))),
            (None, Some(mean), None) => Ok(Some(Delay::Exponential(mean))),
            (None, None, Some(bound)) => Ok(Some(Delay::Uniform(bound))),
            (Some(least), Some(mean), None) => Ok(Some(Delay::Shifted(least, mean))),
            _ => Err(self.invalid(
                key,
                "expected a duration, or a table with `constant`, `exponential`, `uniform`, or `constant` and `exponential`",
            )),
        }
    }

    /// # Errors
    /// Something is left that nobody asked for.
    pub(super) fn finish(&self) -> Result<(), ScenarioError> {
        self.table.keys().next().map_or(Ok(()), |left| Err(self.unknown(left)))
    }

    fn unknown(&self, key: &str) -> ScenarioError {
        ScenarioError::Unknown {
            place: self.place(key),
            near: match nearest(key, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let list: Vec<_> = self.known.iter().map(|known| format!("`{known}`")).collect();
                    format!("there are {}", list.join(", "))
                }
            },
        }
    }
}

fn expected(what: &str, found: &toml::Value) -> String {
    let found: String = found.to_string().chars().take(40).collect();
    format!("expected {what}, found {found}")
}

/// The candidate that was probably meant, if any is near enough to name it.
pub(crate) fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let likeness = |candidate: &str| strsim::normalized_damerau_levenshtein(name, candidate);
    let near = candidates.iter().map(|&candidate| (likeness(candidate), candidate));
    near.filter(|&(likeness, _)| likeness >= 0.5).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, near)| near)
}
