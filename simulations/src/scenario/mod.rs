//! What is simulated: a scenario, read from TOML.
//!
//! Every key is described in `docs/simulation.md`; [`TEMPLATE`] is a commented example.

use core::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::mixes::{self, Delay, MixKind};

mod limits;
mod section;

pub use limits::{LEAST_TO_STOP, LONGEST, loops_under_way};
pub use section::Section;

/// What `tombola-sim init` writes.
pub const TEMPLATE: &str = include_str!("../../scenarios/first.toml");

/// Why a text is no scenario.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// It is no TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// A key that nobody knows.
    #[error("unknown key `{place}`: {near}")]
    Unknown {
        /// With the tables around it.
        place: String,
        /// What it could have been.
        near: String,
    },
    /// A key that has to be there.
    #[error("`{place}` is missing: add it")]
    Missing {
        /// With the tables around it.
        place: String,
    },
    /// A value that cannot be used.
    #[error("`{place}`: {what}")]
    Invalid {
        /// With the tables around it.
        place: String,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// How routes lead through the mixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One mix of every layer; widths of the layers.
    Stratified(Vec<usize>),
    /// So many fixed sequences of mixes of this length; a packet goes through one of them.
    Cascade {
        /// Sequences.
        cascades: usize,
        /// Mixes in each.
        length: usize,
    },
    /// So many different mixes out of all.
    Free {
        /// All mixes.
        mixes: usize,
        /// Of a route.
        hops: usize,
    },
}

impl Topology {
    /// All mixes; saturates.
    #[must_use]
    pub fn mixes(&self) -> usize {
        match self {
            Self::Stratified(widths) => widths.iter().fold(0, |sum, &width| sum.saturating_add(width)),
            Self::Cascade { cascades, length } => cascades.saturating_mul(*length),
            Self::Free { mixes, .. } => *mixes,
        }
    }

    /// Mixes of a route.
    #[must_use]
    pub fn hops(&self) -> usize {
        match self {
            Self::Stratified(widths) => widths.len(),
            Self::Cascade { length, .. } => *length,
            Self::Free { hops, .. } => *hops,
        }
    }

    /// How many mixes share the packets of the hop where most do.
    #[must_use]
    pub fn least_width(&self) -> usize {
        match self {
            Self::Stratified(widths) => widths.iter().copied().min().unwrap_or(1),
            Self::Cascade { cascades, .. } => *cascades,
            Self::Free { mixes, hops } => mixes.div_ceil(*hops),
        }
    }
}

/// When a user writes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// At exponential intervals with this mean.
    Poisson(Duration),
    /// The same while it is active; phases are exponential with these means.
    OnOff {
        /// Mean interval of messages while active.
        interval: Duration,
        /// Mean length of a phase of activity.
        on: Duration,
        /// Mean length of a phase of rest.
        off: Duration,
    },
}

impl User {
    /// Messages per second on average.
    #[must_use]
    pub fn rate(&self) -> f64 {
        match self {
            Self::Poisson(interval) => 1.0 / interval.as_secs_f64(),
            Self::OnOff { interval, on, off } => {
                let active = on.as_secs_f64() / (on.as_secs_f64() + off.as_secs_f64());
                active / interval.as_secs_f64()
            }
        }
    }
}

/// Whether a client's packets leave when its user writes, or on the clock of Loopix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emission {
    /// Every message leaves when it is written.
    Direct,
    /// Messages wait for ticks of the main stream, whose ticks without a message send cover (Loopix, section 4.1).
    Loopix {
        /// Mean interval of the main stream.
        main: Duration,
    },
}

/// How a client's instants come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Every client has a clock of its own.
    Individual,
    /// One clock at the rate of all clients, whose ticks go to clients at random: the same process in law.
    Superposed,
}

/// What clients do.
#[derive(Clone, Debug, PartialEq)]
pub struct Clients {
    /// How many.
    pub count: usize,
    /// When packets leave.
    pub emission: Emission,
    /// How the instants come about.
    pub timing: Timing,
    /// When messages are written.
    pub user: User,
    /// Mean interval of loops: packets that come back to their sender.
    pub loops: Option<Duration>,
    /// Mean interval of drop cover: packets that a gateway discards.
    pub drops: Option<Duration>,
}

impl Clients {
    /// Packets per second that all clients together send.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let of = |interval: Option<Duration>| interval.map_or(0.0, |interval| 1.0 / interval.as_secs_f64());
        let main = match self.emission {
            Emission::Direct => self.user.rate(),
            Emission::Loopix { main } => 1.0 / main.as_secs_f64(),
        };
        self.count as f64 * (main + of(self.loops) + of(self.drops))
    }

    /// As [`Clients::rate`], while all users are active.
    #[must_use]
    pub fn most_rate(&self) -> f64 {
        match (self.emission, self.user) {
            (Emission::Direct, User::OnOff { interval, .. }) => {
                self.rate() + self.count as f64 * (1.0 / interval.as_secs_f64() - self.user.rate())
            }
            _ => self.rate(),
        }
    }

    /// Messages per second that all users together write.
    #[must_use]
    pub fn message_rate(&self) -> f64 {
        self.count as f64 * self.user.rate()
    }
}

/// What is done besides counting packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measures {
    /// Targets that are followed at one time.
    pub lanes: usize,
    /// Mean interval between two targets; `None`: so that hardly any has to be passed over.
    pub interval: Option<Duration>,
    /// Entropy over receivers, too.
    pub receivers: bool,
    /// Clients 0 and 1 are challenge senders.
    pub challenge: bool,
    /// Clients whose loops are followed by the deployed monitor.
    pub monitored_clients: usize,
    /// When a loop counts as lost.
    pub loop_timeout: Duration,
}

/// How results become intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Independent replications.
    Replications,
    /// One long run, cut into batches of `measure`.
    BatchMeans,
}

/// When enough was simulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// Name of the metric.
    pub metric: String,
    /// Half the width of its confidence interval.
    pub half_width: f64,
    /// Replications or batches at most.
    pub at_most: u32,
}

/// How long, how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Simulated time before anything is measured; `None`: found by a pilot run.
    pub warm_up: Option<Duration>,
    /// Simulated time in which packets are measured; of a batch, with batch means.
    pub measure: Duration,
    /// What intervals rest upon.
    pub method: Method,
    /// Replications or batches; with [`Run::stop`] the least.
    pub replications: u32,
    /// Goes on until an interval is narrow enough.
    pub stop: Option<Stop>,
    /// Of the intervals.
    pub confidence: f64,
}

/// A scenario.
#[derive(Debug)]
pub struct Scenario {
    /// From which all randomness follows.
    pub seed: u64,
    /// How routes lead.
    pub topology: Topology,
    /// Where drop cover ends and mailboxes are.
    pub gateways: usize,
    /// Corrupt mixes in each layer (or of all mixes, where there are no layers).
    pub corrupt: usize,
    /// What mixes do.
    pub mix: Box<dyn MixKind>,
    /// What a link takes.
    pub link_delay: Delay,
    /// The share of packets that a link loses.
    pub link_loss: f64,
    /// What clients do.
    pub clients: Clients,
    /// Mean interval of each half of the mixes' own loops.
    pub mix_loops: Option<Duration>,
    /// What is measured.
    pub measures: Measures,
    /// How long, how often.
    pub run: Run,
    /// The text that it was read from.
    pub source: String,
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// The first thing that is wrong with it, where, and what to do.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| ScenarioError::Syntax(error.to_string()))?;
        let mut root = Section::root(table);
        let seed = root.count("seed")?.unwrap_or(1) as u64;
        let there = ["network", "mix", "clients", "run"].map(|key| (key, root.has(key)));
        let mut network = root.section("network")?;
        let mut mixes = root.section("mix")?;
        let mut links = root.section("links")?;
        let mut client = root.section("clients")?;
        let mut own_loops = root.section("mix_loops")?;
        let mut metrics = root.section("metrics")?;
        let mut timing = root.section("run")?;
        // Before anything that is missing: it may be misspelt.
        root.finish()?;
        if let Some((key, _)) = there.iter().find(|(_, there)| !there) {
            return Err(root.missing(key));
        }

        let gateways = network.at_least_one("gateways")?.unwrap_or(1);
        let corrupt = network.count("corrupt_per_layer")?.unwrap_or(0);
        let topology = topology(&mut network)?;
        if corrupt > topology.least_width() {
            return Err(network.invalid("corrupt_per_layer", "more than a layer has mixes"));
        }
        limits::nodes(&network, &topology, gateways)?;
        network.finish()?;

        let mix = mixes::parse(&mut mixes)?;
        mixes.finish()?;

        let link_delay = links.delay("delay", Delay::Constant)?.unwrap_or(Delay::ZERO);
        let link_loss = links.number("loss")?.unwrap_or(0.0);
        if !(0.0..1.0).contains(&link_loss) {
            return Err(
                links.invalid("loss", format!("expected a share from 0 to below 1, found {link_loss}"))
            );
        }
        links.finish()?;

        let clients = clients(&mut client)?;
        client.finish()?;

        let mix_loops = own_loops.interval("interval")?;
        if mix_loops.is_some() && !matches!(topology, Topology::Stratified(_)) {
            return Err(own_loops.invalid("interval", "mixes send loops in a stratified network only"));
        }
        own_loops.finish()?;

        let measures = measures(&mut metrics)?;
        if measures.challenge && clients.count < 3 {
            return Err(metrics.invalid("challenge", "two challenge senders need at least one other client"));
        }
        limits::memory(&client, &measures, &clients)?;
        limits::monitors(&metrics, &measures, &clients, topology.mixes(), mix_loops)?;
        metrics.finish()?;

        let run = run(&mut timing)?;
        limits::length(&timing, &run)?;
        timing.finish()?;
        let scenario = Self {
            seed,
            topology,
            gateways,
            corrupt,
            mix,
            link_delay,
            link_loss,
            clients,
            mix_loops,
            measures,
            run,
            source: text.to_owned(),
        };
        limits::under_way(&root, &scenario)?;
        Ok(scenario)
    }

    /// SHA-256 of the text, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        Sha256::digest(self.source.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Packets per second that arrive at a mix, on average over the mixes where most do.
    #[must_use]
    pub fn arrivals_per_mix(&self) -> f64 {
        (self.clients.rate() + self.own_rate()) / self.topology.least_width() as f64
    }

    /// The same while all users are active.
    #[must_use]
    pub fn most_arrivals_per_mix(&self) -> f64 {
        (self.clients.most_rate() + self.own_rate()) / self.topology.least_width() as f64
    }

    /// Whole routes per second that the mixes' own loops take: two halves make one.
    fn own_rate(&self) -> f64 {
        self.mix_loops.map_or(0.0, |interval| self.topology.mixes() as f64 / interval.as_secs_f64())
    }

    /// Seconds that a packet is under way on average, as far as the mixes know.
    #[must_use]
    pub fn mean_transit(&self) -> f64 {
        let hops = self.topology.hops() as f64;
        hops * self.mix.mean_stay(self.arrivals_per_mix()) + (hops + 1.0) * self.link_delay.mean()
    }

    /// Seconds that a message waits at its sender on average, if users are Poisson: a queue that one server empties.
    #[must_use]
    pub fn mean_wait(&self) -> f64 {
        match self.clients.emission {
            Emission::Direct => 0.0,
            Emission::Loopix { main } => 1.0 / (1.0 / main.as_secs_f64() - self.clients.user.rate()),
        }
    }

    /// Seconds after which all but a thousand-millionth of a target's probability has come out, roughly.
    #[must_use]
    pub fn settling(&self) -> f64 {
        // One hop has its longest stay while the others take some means.
        let hops = self.topology.hops() as f64;
        let arrivals = self.arrivals_per_mix();
        let (mean, longest) = (self.mix.mean_stay(arrivals), self.mix.longest_stay(arrivals));
        longest + (hops - 1.0) * 3.0 * mean + self.link_delay.longest() + hops * self.link_delay.mean()
    }
}

fn topology(section: &mut Section) -> Result<Topology, ScenarioError> {
    let word = section.one_of("topology", "stratified", &["stratified", "cascade", "free"])?;
    let layers = section.count("layers")?;
    let width = section.counts("width")?.ok_or_else(|| section.missing("width"))?;
    if layers == Some(0) || width.is_empty() || width.contains(&0) {
        return Err(section.invalid("width", "a layer has at least one mix, and a route at least one layer"));
    }
    limits::hops(section, layers.unwrap_or(width.len()))?;
    let one = |section: &Section| match width[..] {
        [width] => Ok(width),
        _ => Err(section.invalid("width", "a list of widths is for a stratified network: give one number")),
    };
    Ok(match word {
        "cascade" => Topology::Cascade {
            cascades: one(section)?,
            length: layers.ok_or_else(|| section.missing("layers"))?,
        },
        "free" => {
            let (mixes, hops) = (one(section)?, layers.ok_or_else(|| section.missing("layers"))?);
            if hops > mixes {
                return Err(
                    section.invalid("layers", "a free route visits no mix twice: fewer hops, or more mixes")
                );
            }
            Topology::Free { mixes, hops }
        }
        _ => match (layers, &width[..]) {
            (None, _) => Topology::Stratified(width),
            (Some(layers), [width]) => Topology::Stratified(vec![*width; layers]),
            (Some(layers), list) if list.len() == layers => Topology::Stratified(width),
            _ => return Err(section.invalid("width", "as many widths as `layers` says, or one for all")),
        },
    })
}

fn clients(section: &mut Section) -> Result<Clients, ScenarioError> {
    let kind = section.one_of("emission", "direct", &["direct", "loopix"])?;
    let main = section.interval("main_interval")?;
    let (loops, drops) = (section.interval("loop_interval")?, section.interval("drop_interval")?);
    let timing = section.one_of("timing", "", &["individual", "superposed"])?;
    let inner = section.required_section("user");
    let count = section.required_count("count")?;
    limits::clients(section, count)?;
    let emission = match (kind, main) {
        ("loopix", main) => Emission::Loopix { main: main.ok_or_else(|| section.missing("main_interval"))? },
        (_, None) => Emission::Direct,
        (_, Some(_)) => {
            let what =
                "only clients with `emission = \"loopix\"` have a main stream: leave it out, or add that";
            return Err(section.invalid("main_interval", what));
        }
    };
    let user = user(&mut inner?)?;
    if let Emission::Loopix { main } = emission
        && user.rate() * main.as_secs_f64() >= 1.0
    {
        let what = format!(
            "a user writes {:.6} messages a second on average, and the main stream takes {:.6}: more and more would wait; \
             make it shorter, or `user.interval` longer",
            user.rate(),
            1.0 / main.as_secs_f64()
        );
        return Err(section.invalid("main_interval", what));
    }
    let bursts = matches!(user, User::OnOff { .. }) && emission == Emission::Direct;
    let timing = match timing {
        "superposed" if bursts => {
            let what = "what on/off users send at once is no Poisson process: use \"individual\"";
            return Err(section.invalid("timing", what));
        }
        "" if bursts => Timing::Individual,
        "individual" => Timing::Individual,
        _ => Timing::Superposed,
    };
    Ok(Clients { count, emission, timing, user, loops, drops })
}

fn user(section: &mut Section) -> Result<User, ScenarioError> {
    let behaviour = section.one_of("behaviour", "poisson", &["poisson", "on-off"])?;
    let user = if behaviour == "on-off" {
        let (on, off) = (section.interval("on")?, section.interval("off")?);
        let interval = section.required_interval("interval")?;
        let on = on.ok_or_else(|| section.missing("on"))?;
        User::OnOff { interval, on, off: off.ok_or_else(|| section.missing("off"))? }
    } else {
        User::Poisson(section.required_interval("interval")?)
    };
    section.finish()?;
    Ok(user)
}

/// Targets that can be followed at one time at most.
pub const MAX_LANES: usize = 64;

fn measures(section: &mut Section) -> Result<Measures, ScenarioError> {
    let challenge = section.flag("challenge")?.unwrap_or(false);
    let most = MAX_LANES - 2 * usize::from(challenge);
    let lanes = section.count("lanes")?.unwrap_or(14);
    if !(1..=most).contains(&lanes) {
        return Err(section.invalid("lanes", format!("expected 1 to {most}, found {lanes}")));
    }
    Ok(Measures {
        lanes,
        interval: section.interval("target_interval")?,
        receivers: section.flag("receivers")?.unwrap_or(true),
        challenge,
        monitored_clients: section.count("monitored_clients")?.unwrap_or(10),
        loop_timeout: section.interval("loop_timeout")?.unwrap_or(Duration::from_secs(30)),
    })
}

fn run(section: &mut Section) -> Result<Run, ScenarioError> {
    let warm_up = match section.text("warm_up")?.as_deref() {
        None | Some("auto") => None,
        Some(text) => Some(
            tombola_topology::duration::parse(text)
                .map_err(|error| section.invalid("warm_up", format!("\"auto\", or a duration: {error}")))?,
        ),
    };
    let method = match section.one_of("method", "replications", &["replications", "batch-means"])? {
        "batch-means" => Method::BatchMeans,
        _ => Method::Replications,
    };
    let replications = limits::replications(section, "replications", 10)?;
    let least = replications as usize;
    if replications < 2 {
        return Err(section.invalid("replications", "an interval needs at least two"));
    }
    let confidence = section.number("confidence")?.unwrap_or(0.95);
    if !(0.5..1.0).contains(&confidence) {
        return Err(section.invalid("confidence", "expected a share from 0.5 to below 1, such as 0.95"));
    }
    if section.has("stop") && replications < LEAST_TO_STOP {
        let what = format!(
            "a stopping rule needs at least {LEAST_TO_STOP}, found {replications}: fewer are narrow by chance too often"
        );
        return Err(section.invalid("replications", what));
    }
    let stop = if section.has("stop") {
        let mut inner = section.section("stop")?;
        let metric = inner.one_of("metric", "entropy_bits", crate::experiment::METRICS)?.to_owned();
        let at_most = limits::replications(&mut inner, "at_most", least.max(1000))?;
        if at_most < replications {
            let what = format!("expected at least `run.replications`, {replications}, found {at_most}");
            return Err(inner.invalid("at_most", what));
        }
        let half_width = inner.number("half_width")?.ok_or_else(|| inner.missing("half_width"))?;
        if half_width.is_nan() || half_width <= 0.0 {
            let what = format!("no interval becomes as narrow as {half_width}: expected more than zero");
            return Err(inner.invalid("half_width", what));
        }
        inner.finish()?;
        Some(Stop { metric, half_width, at_most })
    } else {
        // Known, so that a key like it is told its name.
        section.section("stop")?;
        None
    };
    let measure = section.required_interval("measure")?;
    Ok(Run { warm_up, measure, method, replications, stop, confidence })
}
