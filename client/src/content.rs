//! What a message is: a text, a file with its name, or bytes that only the application understands.
//!
//! | type | layout |
//! |---|---|
//! | 0 bytes | type 1, content |
//! | 1 text | type 1, UTF-8 |
//! | 2 file | type 1, length of the name 2 (big-endian), name (UTF-8), content |
//! | 3 signed | one of the others with its sender: see `signed.rs` |

use thiserror::Error;

/// Longest file name, in bytes.
const NAME_MAX: usize = 255;

/// A message's content.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// For an application that has a format of its own.
    Bytes(Vec<u8>),
    /// A text.
    Text(String),
    /// A file.
    File {
        /// Its name, without any folder.
        name: String,
        /// What is in it.
        bytes: Vec<u8>,
    },
}

/// A message that is no [`Content`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ContentError {
    /// Empty, or of a type that this version does not know.
    #[error("the message is of an unknown type ({0:?})")]
    Type(Option<u8>),
    /// A text or a file name that is not UTF-8.
    #[error("the message's text is not UTF-8")]
    Text,
    /// It says who sent it, but is not signed by them, or not for this recipient.
    #[error("the message's signature does not hold")]
    Signature,
    /// A file whose name is cut, too long, or names a folder.
    #[error("the message's file name is not a plain file name")]
    Name,
}

impl Content {
    /// A file's content under the last part of its path.
    ///
    /// # Errors
    /// [`ContentError::Name`]: the path has no last part, or it is longer than 255 bytes or not UTF-8.
    pub fn file(path: &std::path::Path, bytes: Vec<u8>) -> Result<Self, ContentError> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(ContentError::Name)?;
        check_name(name)?;
        Ok(Self::File { name: name.to_owned(), bytes })
    }

    /// Bytes of the content, without type and name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) | Self::File { bytes, .. } => bytes,
            Self::Text(text) => text.as_bytes(),
        }
    }

    /// The message's bytes.
    ///
    /// # Errors
    /// [`ContentError::Name`]: a file name that the other side would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, ContentError> {
        let mut message = Vec::with_capacity(self.as_bytes().len() + 3 + NAME_MAX);
        match self {
            Self::Bytes(_) => message.push(0),
            Self::Text(_) => message.push(1),
            Self::File { name, .. } => {
                check_name(name)?;
                let length = u16::try_from(name.len()).map_err(|_| ContentError::Name)?;
                message.push(2);
                message.extend_from_slice(&length.to_be_bytes());
                message.extend_from_slice(name.as_bytes());
            }
        }
        message.extend_from_slice(self.as_bytes());
        Ok(message)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is no content of this version. Its sender is at fault.
    pub fn decode(message: Vec<u8>) -> Result<Self, ContentError> {
        match message.first() {
            Some(0) => Ok(Self::Bytes(message[1..].to_vec())),
            Some(1) => {
                String::from_utf8(message[1..].to_vec()).map(Self::Text).map_err(|_| ContentError::Text)
            }
            Some(2) => {
                let (length, rest) = message[1..].split_first_chunk::<2>().ok_or(ContentError::Name)?;
                let length = usize::from(u16::from_be_bytes(*length));
                let (name, bytes) = rest.split_at_checked(length).ok_or(ContentError::Name)?;
                let name = std::str::from_utf8(name).map_err(|_| ContentError::Text)?;
                check_name(name)?;
                Ok(Self::File { name: name.to_owned(), bytes: bytes.to_vec() })
            }
            other => Err(ContentError::Type(other.copied())),
        }
    }
}

/// A name that creates a file where the recipient wants it and nowhere else, and shows as what it is in a terminal.
fn check_name(name: &str) -> Result<(), ContentError> {
    let plain = !name.is_empty()
        && name.len() <= NAME_MAX
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'));
    if plain { Ok(()) } else { Err(ContentError::Name) }
}

impl std::fmt::Debug for Content {
    /// Shows kind and length only: what people write to each other does not belong in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self {
            Self::Bytes(_) => "Bytes",
            Self::Text(_) => "Text",
            Self::File { .. } => "File",
        };
        write!(f, "{kind}({} bytes)", self.as_bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back() {
        for content in [
            Content::Bytes(vec![0, 1, 2]),
            Content::Bytes(Vec::new()),
            Content::Text("grüezi".to_owned()),
            Content::File { name: "a.txt".to_owned(), bytes: vec![9; 10] },
            Content::File { name: "leer".to_owned(), bytes: Vec::new() },
        ] {
            assert_eq!(Content::decode(content.encode().unwrap()), Ok(content));
        }
    }

    #[test]
    fn a_file_name_never_leaves_its_folder() {
        for name in
            ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\nb", "a\u{1b}[2Jb", &"x".repeat(256)]
        {
            let content = Content::File { name: name.to_owned(), bytes: Vec::new() };
            assert_eq!(content.encode(), Err(ContentError::Name), "{name:?}");
            let mut message = vec![2];
            message.extend_from_slice(&u16::try_from(name.len()).unwrap().to_be_bytes());
            message.extend_from_slice(name.as_bytes());
            assert_eq!(Content::decode(message), Err(ContentError::Name), "{name:?}");
        }
    }

    #[test]
    fn what_is_no_content_is_named() {
        assert_eq!(Content::decode(vec![]), Err(ContentError::Type(None)));
        assert_eq!(Content::decode(vec![7]), Err(ContentError::Type(Some(7))));
        assert_eq!(Content::decode(vec![1, 0xff]), Err(ContentError::Text));
        assert_eq!(Content::decode(vec![2, 0]), Err(ContentError::Name));
        assert_eq!(Content::decode(vec![2, 0, 9, b'x']), Err(ContentError::Name));
    }
}
