//! What a link costs, on this machine, now: CPU time per frame (sending and receiving together), the latency from `send` to
//! the sink, and what open links cost that do nothing.
//!
//! ```sh
//! cargo run --release -p tombola-link --example cost -- [threads of the runtime, default 1]
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a measurement to look at"
)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tombola_link::{
    FrameSink, LinkConfig, LinkSecret, Links, NODE_PROTOCOL, Peer, Policy, SendError, Taken, start,
};
use tombola_protocol::frame::Frame;
use tombola_topology::IdentityKey;

/// Neighbours of the one node in the middle; each has one link.
const LINKS: u8 = 20;
/// Frames per second and link and direction at the low rate.
const RATE: u32 = 50;
const LOW_RATE_FOR: Duration = Duration::from_secs(10);
const IDLE_FOR: Duration = Duration::from_secs(10);
const BULK: u64 = 300_000;

/// Counts, and reads the latency from the frames.
struct Probe {
    began: Instant,
    frames: AtomicU64,
    latencies_us: Mutex<Vec<u64>>,
}

impl FrameSink for Probe {
    fn connected(&self, _: &IdentityKey) -> Taken {
        Taken::Yes
    }

    fn frames(&self, _: &IdentityKey, batch: &mut Vec<Frame>) {
        self.frames.fetch_add(batch.len() as u64, Relaxed);
        let now = self.now_us();
        let mut latencies = self.latencies_us.lock().unwrap();
        for frame in batch.drain(..) {
            let (sent, _) = frame.as_bytes().split_first_chunk().unwrap();
            let sent = u64::from_be_bytes(*sent);
            if sent > 0 {
                latencies.push(now.saturating_sub(sent));
            }
        }
    }

    fn disconnected(&self, _: &IdentityKey) -> Taken {
        Taken::Yes
    }
}

impl Probe {
    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn stamped(&self) -> Frame {
        let mut frame = Frame::zeroed();
        frame.as_bytes_mut()[..8].copy_from_slice(&self.now_us().to_be_bytes());
        frame
    }

    fn wait_for(&self, frames: u64) {
        while self.frames.load(Relaxed) < frames {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Median and 99th percentile.
    fn latencies(&self) -> (u64, u64) {
        let mut latencies = std::mem::take(&mut *self.latencies_us.lock().unwrap());
        latencies.sort_unstable();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or(0);
        (at(50), at(99))
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn secret(n: u8) -> LinkSecret {
    LinkSecret::from_seed([n; 32])
}

struct Star {
    probe: Arc<Probe>,
    middle: Links,
    others: Vec<Links>,
}

/// One node in the middle, listening on `address`, and [`LINKS`] that have dialled it.
async fn star(address: &str) -> Star {
    let probe = Probe { began: Instant::now(), frames: AtomicU64::new(0), latencies_us: Mutex::default() };
    let probe = Arc::new(probe);
    let sink = || Arc::clone(&probe) as Arc<dyn FrameSink>;
    let config = LinkConfig::new(secret(0), Policy::Neighbours, NODE_PROTOCOL).listen_on(address);
    let awaited = (1..=LINKS).map(|n| Peer::awaited(secret(n).identity())).collect();
    let middle = start(config, awaited, sink()).await.unwrap();
    let mut others = Vec::new();
    for n in 1..=LINKS {
        let config = LinkConfig::new(secret(n), Policy::Neighbours, NODE_PROTOCOL);
        let peer = Peer::dialled(middle.identity(), middle.listen_addresses());
        others.push(start(config, vec![peer], sink()).await.unwrap());
    }
    while middle.stats().links < usize::from(LINKS) || others.iter().any(|other| other.stats().links == 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Star { probe, middle, others }
}

impl Star {
    fn idle(&self) {
        let before = cpu_time();
        std::thread::sleep(IDLE_FOR);
        let used = cpu_time() - before;
        println!("  {LINKS} open links, idle        {:>8.2} % of a core", percent(used, IDLE_FOR));
    }

    /// Sends at a low rate over some links, in both directions, evenly spaced, from a thread that the runtime doesn't know.
    fn low_rate(&self, links: usize) {
        let per_second = RATE * 2 * links as u32;
        let before = (cpu_time(), self.probe.frames.load(Relaxed), Instant::now());
        let total = per_second * LOW_RATE_FOR.as_secs() as u32;
        let pause = Duration::from_secs(1) / per_second;
        for n in 0..total {
            std::thread::sleep((before.2 + pause * n).saturating_duration_since(Instant::now()));
            let other = &self.others[n as usize / 2 % links];
            let (from, to) = if n % 2 == 0 { (&self.middle, other) } else { (other, &self.middle) };
            from.send(&to.identity(), self.probe.stamped()).unwrap();
        }
        self.probe.wait_for(before.1 + u64::from(total));
        let (used, took) = (cpu_time() - before.0, before.2.elapsed());
        let (median, worst) = self.probe.latencies();
        println!(
            "  {links:>2} links, {per_second:>4} frames/s       {:>8.2} % of a core, {:>6.1} us/frame, latency p50 {median} us, p99 {worst} us",
            percent(used, took),
            used.as_secs_f64() * 1e6 / f64::from(total),
        );
    }

    /// As many frames as it takes, over one link, in one direction.
    fn bulk(&self) {
        let to = self.middle.identity();
        let before = (cpu_time(), self.probe.frames.load(Relaxed), Instant::now());
        for _ in 0..BULK {
            let mut frame = Frame::zeroed();
            while let Err(SendError::Full(refused)) = self.others[0].send(&to, frame) {
                frame = refused;
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        self.probe.wait_for(before.1 + BULK);
        let (used, took) = (cpu_time() - before.0, before.2.elapsed());
        println!(
            "  bulk, one link             {:>8.0} frames/s, {:>6.1} us/frame",
            BULK as f64 / took.as_secs_f64(),
            used.as_secs_f64() * 1e6 / BULK as f64,
        );
    }
}

fn percent(used: Duration, of: Duration) -> f64 {
    100.0 * used.as_secs_f64() / of.as_secs_f64()
}

fn main() {
    let threads = std::env::args().nth(1).map_or(1, |text| text.parse().unwrap());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
    for (name, address) in [("QUIC", "/ip4/127.0.0.1/udp/0/quic-v1"), ("TCP", "/ip4/127.0.0.1/tcp/0")] {
        println!("{name}");
        let star = runtime.block_on(star(address));
        star.idle();
        star.low_rate(1);
        star.low_rate(usize::from(LINKS));
        star.bulk();
        runtime.block_on(async {
            star.middle.shutdown().await;
            for other in &star.others {
                other.shutdown().await;
            }
        });
    }
}
