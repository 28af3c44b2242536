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

/// What records hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Whole frames that each record completes.
    pub frames: Vec<usize>,
    /// Records that end within a frame because the receiver's window was full.
    pub cuts: usize,
}

/// Records in a row that may end within a frame.
const CUTS_IN_A_ROW: usize = 3;

/// Takes records apart into whole frames of `frame` bytes and Yamux headers.
///
/// A record holds whole frames and at least one header, or headers alone. Exceptions, both of Yamux's making: so many
/// frames were written at once that they do not fit one piece ([`YAMUX_PIECE`]), then a record holds one piece of exactly
/// that length; or a receiver that is behind has no more room in its window, then a record holds what fits. In either case
/// the next records hold exactly what is missing to a whole number of frames.
///
/// # Errors
/// Place and length of the first record that holds anything else.
pub fn take_apart(records: &[usize], frame: usize) -> Result<Content, (usize, usize)> {
    let mut content = Content::default();
    // Bytes of frames that are not whole yet. After a cut there are several possibilities: how many of the record's bytes
    // were headers cannot be seen.
    let mut unfinished = vec![0];
    let mut in_a_row = 0;
    for (place, &length) in records.iter().enumerate() {
        let wrong = (place, length);
        let inside = length.checked_sub(NOISE_TAG).ok_or(wrong)?;
        if inside == YAMUX_HEADER + YAMUX_PIECE {
            unfinished.iter_mut().for_each(|bytes| *bytes += YAMUX_PIECE);
            content.frames.push(0);
            continue;
        }
        if inside.is_multiple_of(YAMUX_HEADER) && (1..=3).contains(&(inside / YAMUX_HEADER)) {
            content.frames.push(0);
            continue;
        }
        // One header for each piece, and some for windows and pings.
        let data: Vec<usize> = (1..inside / YAMUX_PIECE + 4)
            .filter_map(|headers| inside.checked_sub(headers * YAMUX_HEADER).filter(|data| *data > 0))
            .flat_map(|data| unfinished.iter().map(move |bytes| bytes + data))
            .collect();
        if let Some(whole) = data.iter().find(|data| data.is_multiple_of(frame)) {
            content.frames.push(whole / frame);
            (unfinished, in_a_row) = (vec![0], 0);
            continue;
        }
        in_a_row += 1;
        if in_a_row > CUTS_IN_A_ROW || data.is_empty() {
            return Err(wrong);
        }
        content.cuts += 1;
        content.frames.push(0);
        unfinished = data;
    }
    Ok(content)
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

    fn frames(lengths: &[usize]) -> Option<Vec<usize>> {
        let records: Vec<usize> = lengths.iter().map(|length| length + NOISE_TAG).collect();
        let content = take_apart(&records, 2448).ok()?;
        (content.cuts == 0).then_some(content.frames)
    }

    #[test]
    fn only_whole_frames_and_headers_are_content() {
        assert_eq!(frames(&[2448 + 12]), Some(vec![1]));
        assert_eq!(frames(&[2 * 2448 + 12]), Some(vec![2]));
        assert_eq!(frames(&[2 * 2448 + 24]), Some(vec![2]));
        assert_eq!(frames(&[12]), Some(vec![0]));
        for wrong in [2448, 2447 + 12, 300, 0, 11] {
            assert_eq!(frames(&[wrong]), None, "{wrong}");
        }
        assert_eq!(take_apart(&[3], 2448), Err((0, 3)));
        // Seven frames in two pieces, a ping in between.
        let rest = 7 * 2448 - 16_384;
        assert_eq!(frames(&[16_384 + 12, 12, rest + 12, 2448 + 12]), Some(vec![0, 0, 7, 1]));
        assert_eq!(frames(&[16_384 + 12, rest + 13]), None);
    }

    #[test]
    fn a_full_window_cuts_a_frame_and_frames_of_another_length_are_found() {
        let cut = [2448, 1000, 1448 + 2448, 2448].map(|data| data + YAMUX_HEADER + NOISE_TAG);
        assert_eq!(take_apart(&cut, 2448), Ok(Content { frames: vec![1, 0, 2, 1], cuts: 1 }));
        let other = [2449; 10].map(|data| data + YAMUX_HEADER + NOISE_TAG);
        assert!(take_apart(&other, 2448).is_err());
    }
}
