//! What an observer can take apart of a TCP connection: the negotiation in the clear, then records with their lengths.

/// Bytes that Noise adds to a record's content: the tag.
pub const NOISE_TAG: usize = 16;
/// Length of a Yamux header.
pub const YAMUX_HEADER: usize = 12;

/// One direction of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direction {
    /// What was said before encryption, without the newlines: names of protocols.
    pub negotiation: Vec<String>,
    /// Length of each record after that, handshake included, without its two bytes of length.
    pub records: Vec<usize>,
}

impl Direction {
    /// Takes one direction apart. A record that is not complete yet is left out.
    ///
    /// multistream-select sends lines behind their length (one byte here); Noise records follow two bytes of length,
    /// big-endian.
    pub fn of(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        let mut negotiation = Vec::new();
        while let [length, body @ ..] = rest {
            let Some((line, after)) = body.split_at_checked(usize::from(*length)) else { break };
            let Some(name) = line.strip_suffix(b"\n").filter(|name| name.starts_with(b"/")) else { break };
            negotiation.push(String::from_utf8_lossy(name).into_owned());
            rest = after;
        }
        let mut records = Vec::new();
        while let [high, low, body @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some((_, after)) = body.split_at_checked(length) else { break };
            records.push(length);
            rest = after;
        }
        Self { negotiation, records }
    }
}

/// Yamux cuts what is written at once into pieces of at most this length.
pub const YAMUX_PIECE: usize = 16_384;

/// How many whole frames of `frame` bytes each record completes.
///
/// A record holds whole frames and Yamux headers (at least one), or headers alone. Only when so many frames were written at
/// once that they do not fit one piece of Yamux does a record hold one piece of exactly that length, and a later one what is
/// missing to a whole number of frames.
///
/// # Errors
/// Place and length of the first record that holds anything else.
pub fn frames(records: &[usize], frame: usize) -> Result<Vec<usize>, (usize, usize)> {
    let mut unfinished = 0;
    let mut completed = Vec::new();
    for (place, &length) in records.iter().enumerate() {
        let content = length.checked_sub(NOISE_TAG).ok_or((place, length))?;
        if content == YAMUX_HEADER + YAMUX_PIECE {
            unfinished += YAMUX_PIECE;
            completed.push(0);
        } else if content.is_multiple_of(YAMUX_HEADER) && (1..=3).contains(&(content / YAMUX_HEADER)) {
            completed.push(0);
        } else {
            let held = whole(unfinished, content, frame).ok_or((place, length))?;
            unfinished = 0;
            completed.push(held);
        }
    }
    Ok(completed)
}

/// Frames in `content` bytes after `unfinished` ones: with one header for each piece, and some for windows and pings.
fn whole(unfinished: usize, content: usize, frame: usize) -> Option<usize> {
    let most = content / YAMUX_PIECE + 4;
    (1..=most).find_map(|headers| {
        let data = unfinished + content.checked_sub(headers * YAMUX_HEADER)?;
        (data > 0 && data.is_multiple_of(frame)).then_some(data / frame)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_is_taken_apart() {
        let mut bytes = b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x02ab\x00\x03abc".to_vec();
        let expected = Direction {
            negotiation: vec!["/multistream/1.0.0".to_owned(), "/noise".to_owned()],
            records: vec![2, 3],
        };
        assert_eq!(Direction::of(&bytes), expected);
        bytes.extend([0, 9, 1]);
        assert_eq!(Direction::of(&bytes), expected);
    }

    #[test]
    fn only_whole_frames_and_headers_are_content() {
        let one = |length: usize| frames(&[length + 16], 2448);
        assert_eq!(one(2448 + 12), Ok(vec![1]));
        assert_eq!(one(2 * 2448 + 12), Ok(vec![2]));
        assert_eq!(one(2 * 2448 + 24), Ok(vec![2]));
        assert_eq!(one(12), Ok(vec![0]));
        for wrong in [2448, 2447 + 12, 300, 0, 11] {
            assert_eq!(one(wrong), Err((0, wrong + 16)));
        }
        assert_eq!(frames(&[3], 2448), Err((0, 3)));
        // Seven frames in two pieces, a ping in between.
        let rest = 7 * 2448 - 16_384;
        assert_eq!(frames(&[16_384 + 28, 28, rest + 28, 2448 + 28], 2448), Ok(vec![0, 0, 7, 1]));
        assert_eq!(frames(&[16_384 + 28, rest + 29], 2448), Err((1, rest + 29)));
    }
}
