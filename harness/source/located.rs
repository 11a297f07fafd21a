//! A value and where in its file it was written, so that a failed expectation can underline itself.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::{Deref, Range};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value with its position in the file that it was read from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Line, counted from 1 (0: not read from a file).
    pub line: usize,
    /// Column, counted from 1.
    pub column: usize,
    /// Byte range in the file; block collections have length 0 (serde-saphyr knows only where they start).
    pub span: Range<usize>,
}

impl<T> Located<T> {
    /// A value that was not read from a file: a default.
    pub fn nowhere(value: T) -> Self {
        Self { value, line: 0, column: 0, span: 0..0 }
    }

    /// Another value at the same place.
    pub fn with<U>(&self, value: U) -> Located<U> {
        Located { value, line: self.line, column: self.column, span: self.span.clone() }
    }
}

/// By value, then by place: so that a value can be the key of a map.
impl<T: Ord> Ord for Located<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |x: &Self| (x.line, x.column, x.span.start, x.span.end);
        self.value.cmp(&other.value).then_with(|| place(self).cmp(&place(other)))
    }
}

impl<T: Ord> PartialOrd for Located<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Deref for Located<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<T>::deserialize(deserializer)?;
        let at = spanned.referenced;
        let start = at.span().byte_offset().unwrap_or(0) as usize;
        let len = at.span().byte_len().unwrap_or(0) as usize;
        Ok(Self {
            value: spanned.value,
            line: at.line() as usize,
            column: at.column() as usize,
            span: start..start + len,
        })
    }
}

impl<T: Serialize> Serialize for Located<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
