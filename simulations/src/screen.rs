//! A terminal on which a line of progress and lines of results do not overwrite each other.

use std::io::{IsTerminal as _, Result, Stderr, Stdout, Write};

/// What a line of progress takes.
const COLUMNS: usize = 78;

/// Lines go to one output, progress to another; often both are the same terminal.
#[derive(Debug)]
pub struct Screen<O, E> {
    lines: O,
    progress: E,
    /// Whether anybody sees progress.
    shows: bool,
    /// Whether a line of progress stands where the next line would go.
    occupied: bool,
}

impl Default for Screen<Stdout, Stderr> {
    /// Standard output; progress on standard error, if that is a terminal.
    fn default() -> Self {
        let shows = std::io::stderr().is_terminal();
        Self { lines: std::io::stdout(), progress: std::io::stderr(), shows, occupied: false }
    }
}

impl<O: Write, E: Write> Screen<O, E> {
    /// A whole line.
    ///
    /// # Errors
    /// The output fails.
    pub fn say(&mut self, line: &str) -> Result<()> {
        self.clear();
        writeln!(self.lines, "{line}")?;
        self.lines.flush()
    }

    /// How far it is, in the place of what was said about that before. A terminal that fails does not matter.
    pub fn progress(&mut self, text: &str) {
        if self.shows {
            let _ = write!(self.progress, "\r{text:<COLUMNS$}");
            let _ = self.progress.flush();
            self.occupied = true;
        }
    }

    /// Takes progress away.
    pub fn clear(&mut self) {
        if core::mem::take(&mut self.occupied) {
            let _ = write!(self.progress, "\r{:<COLUMNS$}\r", "");
            let _ = self.progress.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// One of two ways to the same terminal.
    struct Terminal<'a>(&'a RefCell<Vec<u8>>);

    impl Write for Terminal<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    /// What stands on a terminal in the end.
    fn shown(bytes: &[u8]) -> Vec<String> {
        let line = |line: &str| {
            let mut cells: Vec<char> = Vec::new();
            let mut at = 0;
            for sign in line.chars() {
                if sign == '\r' {
                    at = 0;
                    continue;
                }
                cells.resize(cells.len().max(at + 1), ' ');
                cells[at] = sign;
                at += 1;
            }
            cells.into_iter().collect::<String>().trim_end().to_owned()
        };
        str::from_utf8(bytes).unwrap().split('\n').map(line).collect()
    }

    fn after(shows: bool) -> Vec<String> {
        let bytes = RefCell::default();
        let mut screen =
            Screen { lines: Terminal(&bytes), progress: Terminal(&bytes), shows, occupied: false };
        screen.say("what    verdict").unwrap();
        screen.progress("  10 %, a line that is longer than the others");
        screen.progress("  20 %");
        screen.say("short   ok").unwrap();
        screen.say("next    ok").unwrap();
        screen.progress("  30 %");
        screen.clear();
        shown(&bytes.into_inner())
    }

    #[test]
    fn nothing_of_the_progress_is_left_in_lines() {
        for shows in [true, false] {
            assert_eq!(after(shows), ["what    verdict", "short   ok", "next    ok", ""]);
        }
    }
}
