//! Reads the table that divan prints.
//!
//! ```text
//! sphinx           fastest       │ slowest       │ median        │ mean          │ samples │ iters
//! ├─ unwrap_batch                │               │               │               │         │
//! │  ╰─ 32         8.211 µs      │ 35.33 µs      │ 8.272 µs      │ 8.721 µs      │ 100     │ 100
//! │                3.896 Mitem/s │ 905.7 Kitem/s │ 3.868 Mitem/s │ 3.668 Mitem/s │         │
//! ╰─ unwrap        286.3 ns      │ 297.7 ns      │ 290.1 ns      │ 290.2 ns      │ 100     │ 800
//! ```
//!
//! A row is a benchmark if its third column is a time, a group if its columns are empty. A row without a branch
//! belongs to the benchmark above it and holds a rate. Everything else (other programs' lines, the heading, ignored
//! benchmarks) is passed over.

/// One benchmark.
#[derive(Debug, PartialEq)]
pub(super) struct Benchmark {
    /// Names of its groups, outermost first, its own, and its argument if it has one; never empty.
    pub(super) path: Vec<String>,
    /// Median time of one call, in microseconds.
    pub(super) median_us: f64,
    /// Shortest time of one call, in microseconds: what is left when nothing else ran.
    pub(super) fastest_us: f64,
    /// Median rate of the items that the benchmark counts, if it does.
    pub(super) items_per_second: Option<f64>,
}

impl Benchmark {
    /// How many items a call treats; a benchmark that counts none has one.
    pub(super) fn items(&self) -> f64 {
        self.items_per_second.map_or(1.0, |rate| (rate * self.median_us / 1e6).round().max(1.0))
    }
}

/// Collects benchmarks line by line.
#[derive(Default)]
pub(super) struct Table {
    /// Names of the groups that the next row may be in, outermost first.
    groups: Vec<String>,
    benchmarks: Vec<Benchmark>,
}

/// Columns of the table; the name shares the first.
const COLUMNS: usize = 6;
const FASTEST: usize = 0;
const MEDIAN: usize = 2;

impl Table {
    /// Takes the next line of the program's output.
    pub(super) fn read(&mut self, line: &str) {
        // From the right, since the tree on the left uses the same bar.
        let mut cells: Vec<&str> = line.rsplitn(COLUMNS, '│').collect();
        cells.reverse();
        if cells.len() != COLUMNS {
            return;
        }
        let median = cells[MEDIAN].trim();
        match row(line) {
            Some((depth, name)) => {
                self.groups.truncate(depth);
                self.groups.push(name.into());
                // The first column is what stands behind the name.
                let fastest = cells[FASTEST].trim().rsplit("  ").next().unwrap_or_default();
                if let (Some(median_us), Some(fastest_us)) = (microseconds(median), microseconds(fastest)) {
                    let path = self.groups.clone();
                    self.benchmarks.push(Benchmark { path, median_us, fastest_us, items_per_second: None });
                }
            }
            None => {
                if let (Some(rate), Some(last)) = (items_per_second(median), self.benchmarks.last_mut()) {
                    last.items_per_second = Some(rate);
                }
            }
        }
    }

    /// The benchmarks, in the order of the table.
    pub(super) fn into_benchmarks(self) -> Vec<Benchmark> {
        self.benchmarks
    }
}

/// Depth and name of a row with a branch. The name ends where two spaces follow: it may contain single ones.
fn row(line: &str) -> Option<(usize, &str)> {
    let mut rest = line;
    let mut depth = 0;
    loop {
        if let Some(after) = rest.strip_prefix("├─ ").or_else(|| rest.strip_prefix("╰─ ")) {
            let name = after.split("  ").next()?.trim();
            return Some((depth, name));
        }
        rest = rest.strip_prefix("│  ").or_else(|| rest.strip_prefix("   "))?;
        depth += 1;
    }
}

/// A time such as `8.272 µs`.
fn microseconds(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let scale = match unit {
        "ps" => 1e-6,
        "ns" => 1e-3,
        "µs" | "μs" | "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        "h" => 3600e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

/// A rate such as `3.868 Mitem/s`.
fn items_per_second(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let scale = match unit.strip_suffix("item/s")? {
        "" => 1.0,
        "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by divan 0.1.21.
    const OUTPUT: &str = "
     Running benches/sphinx.rs (target/release/deps/sphinx-3921b70e232d44a9)
Timer precision: 20 ns
sphinx                       fastest       │ slowest       │ median        │ mean          │ samples │ iters
├─ ignored                   (ignored)     │               │               │               │         │
├─ unwrap_batch                            │               │               │               │         │
│  ├─ 1                      280.1 ns      │ 628.1 ns      │ 283.8 ns      │ 287.6 ns      │ 100     │ 800
│  │                         3.569 Mitem/s │ 1.592 Mitem/s │ 3.522 Mitem/s │ 3.476 Mitem/s │         │
│  ╰─ 32                     8.211 µs      │ 35.33 µs      │ 8.272 µs      │ 8.721 µs      │ 100     │ 100
│                            3.896 Mitem/s │ 905.7 Kitem/s │ 3.868 Mitem/s │ 3.668 Mitem/s │         │
├─ unwrap                    286.3 ns      │ 297.7 ns      │ 290.1 ns      │ 290.2 ns      │ 100     │ 800
╰─ group                                   │               │               │               │         │
   ├─ slow                   15.57 ms      │ 49.95 ms      │ 24.05 ms      │ 26.15 ms      │ 100     │ 100
   ╰─ in_threads                           │               │               │               │         │
      ╰─ t=2                 1.551 µs      │ 1.627 µs      │ 1.582 µs      │ 1.581 µs      │ 100     │ 200
";

    #[test]
    fn table_of_divan() {
        let mut table = Table::default();
        OUTPUT.lines().for_each(|line| table.read(line));
        let found = table.into_benchmarks();
        let expected = [
            ("unwrap_batch/1", 0.2801, 0.2838, 1.0),
            ("unwrap_batch/32", 8.211, 8.272, 32.0),
            ("unwrap", 0.2863, 0.2901, 1.0),
            ("group/slow", 15_570.0, 24_050.0, 1.0),
            ("group/in_threads/t=2", 1.551, 1.582, 1.0),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, (path, fastest, median, items)) in found.into_iter().zip(expected) {
            assert_eq!(found.path.join("/"), path);
            assert!((found.fastest_us / fastest - 1.0).abs() < 1e-9, "{found:?}");
            assert!((found.median_us / median - 1.0).abs() < 1e-9, "{found:?}");
            assert!((found.items() - items).abs() < 1e-9, "{found:?}");
        }
    }

    #[test]
    fn unknown_units_are_no_times() {
        assert_eq!(microseconds("3 KB"), None);
        assert_eq!(microseconds("3.869 Mitem/s"), None);
        assert_eq!(microseconds(""), None);
        assert_eq!(items_per_second("3.869 MB/s"), None);
    }
}
