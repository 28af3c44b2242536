//! Progress bars, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over packets, on standard error; silent when that is no terminal.
pub(crate) fn bar(label: String, packets: u32) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(u64::from(packets)), ProgressDrawTarget::stderr());
    let template = "{prefix} {bar:30} {pos}/{len} packets, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_prefix(label);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
