//! What all participants of a network do alike.

use core::time::Duration;

use crate::duration;
use crate::error::{Invalid, Problem};
use crate::json::Json;
use crate::reader::{Path, Reader};

/// Mix layers that fit a route: five hops less the recipient's gateway and the recipient.
pub const MAX_LAYERS: u8 = 3;

const MICROSECOND: Duration = Duration::from_micros(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Everything that affects anonymity. It comes from the network document and from nowhere else: a node or a
/// client that deviated would stand out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// Mix layers, 1 to [`MAX_LAYERS`].
    pub layers: u8,
    /// Mean of the exponential delay at each mix node. 1 us to 1 h.
    pub mean_delay: Duration,
    /// Bound to which a mix node clamps a delay. At least four times the mean, at most 1 d.
    ///
    /// The mixing is memoryless (an observer learns nothing from how long a packet has been inside) only as
    /// far as delays are exponential (Loopix, section 4.2). Clamping at four means already moves e^-4 = 1.8 %
    /// of all packets to one instant; at the default of twenty-two means it is never seen.
    pub max_delay: Duration,
    /// Mean interval of the Poisson clock on which a client sends: messages if any wait, else cover. 1 us to
    /// 1 d.
    pub main_interval: Duration,
    /// Mean interval of a client's loops. 1 us to 1 d.
    pub loop_interval: Duration,
    /// Mean interval of a client's drop cover. 1 us to 1 d.
    pub drop_interval: Duration,
    /// Mean interval of a mix node's loops, each half on its own. 1 us to 1 d.
    pub mix_loop_interval: Duration,
    /// After this time a loop counts as lost. At least twenty times the mean delay, at most 1 d.
    ///
    /// Three exponential delays together exceed twenty means with probability 5 x 10^-7 (Erlang
    /// distribution): nothing against the loss of 1 % at which alarms begin.
    pub loop_timeout: Duration,
    /// Interval at which a gateway hands mail to a client, one packet each, mail or not. Less than the loop
    /// interval.
    pub downlink_interval: Duration,
    /// Packets that a gateway keeps for one client. 1 to 2^24.
    pub mailbox_packets: u32,
    /// How long a gateway keeps a packet that its client does not fetch. 1 s to 3650 d.
    pub mailbox_retention: Duration,
    /// Clients that one gateway serves. 1 to 10^6.
    pub clients_per_gateway: u32,
    /// Packets per second that a node admits in an epoch's mean: sizes the replay filter. 1 to 10^7.
    pub admitted_rate: u32,
}

impl Default for Parameters {
    /// Three layers, 0.45 s in each on average, 17 packets per second and client.
    fn default() -> Self {
        Self {
            layers: 3,
            mean_delay: Duration::from_millis(450),
            max_delay: Duration::from_secs(10),
            main_interval: Duration::from_millis(48),
            loop_interval: Duration::from_secs(2),
            drop_interval: Duration::from_secs(2),
            mix_loop_interval: Duration::from_secs(2),
            loop_timeout: Duration::from_secs(30),
            downlink_interval: Duration::from_millis(40),
            mailbox_packets: 65_536,
            mailbox_retention: 14 * DAY,
            clients_per_gateway: 256,
            admitted_rate: 10_000,
        }
    }
}

/// Names in the document.
const FIELDS: &[&str] = &[
    "admitted_rate",
    "clients_per_gateway",
    "downlink_interval",
    "drop_interval",
    "layers",
    "loop_interval",
    "loop_timeout",
    "mailbox_packets",
    "mailbox_retention",
    "main_interval",
    "max_delay",
    "mean_delay",
    "mix_loop_interval",
];

const MAILBOX_PACKETS_MAX: u32 = 1 << 24;
const CLIENTS_MAX: u32 = 1_000_000;
const RATE_MAX: u32 = 10_000_000;

impl Parameters {
    /// Checks every range and the relations between the values.
    ///
    /// # Errors
    /// The first field that is wrong, by its name in the document.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.validate_at(&Path::Root)
    }

    pub(crate) fn validate_at(&self, path: &Path<'_>) -> Result<(), Invalid> {
        let count = |name, value: u32, max: u32| {
            if (1..=max).contains(&value) {
                return Ok(());
            }
            let [min, max, found] = [1, max, value].map(|number| number.to_string());
            Err(Path::Field(path, name).invalid(Problem::Range { min, max, found }))
        };
        let time = |name, value: Duration, min: Duration, max: Duration| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            let [min, max, found] = [min, max, value].map(duration::format);
            Err(Path::Field(path, name).invalid(Problem::Range { min, max, found }))
        };

        count("layers", self.layers.into(), MAX_LAYERS.into())?;
        time("mean_delay", self.mean_delay, MICROSECOND, DAY / 24)?;
        time("max_delay", self.max_delay, MICROSECOND, DAY)?;
        time("main_interval", self.main_interval, MICROSECOND, DAY)?;
        time("loop_interval", self.loop_interval, MICROSECOND, DAY)?;
        time("drop_interval", self.drop_interval, MICROSECOND, DAY)?;
        time("mix_loop_interval", self.mix_loop_interval, MICROSECOND, DAY)?;
        time("loop_timeout", self.loop_timeout, MICROSECOND, DAY)?;
        time("downlink_interval", self.downlink_interval, MICROSECOND, DAY)?;
        count("mailbox_packets", self.mailbox_packets, MAILBOX_PACKETS_MAX)?;
        time("mailbox_retention", self.mailbox_retention, Duration::from_secs(1), 3650 * DAY)?;
        count("clients_per_gateway", self.clients_per_gateway, CLIENTS_MAX)?;
        count("admitted_rate", self.admitted_rate, RATE_MAX)?;

        let at_least =
            |multiple: u32| (duration::format(multiple * self.mean_delay), multiple * self.mean_delay);
        let (least, bound) = at_least(4);
        if self.max_delay < bound {
            let found = duration::format(self.max_delay);
            return Err(Path::Field(path, "max_delay").invalid(Problem::MaxDelayShort { least, found }));
        }
        let (least, bound) = at_least(20);
        if self.loop_timeout < bound {
            let found = duration::format(self.loop_timeout);
            return Err(Path::Field(path, "loop_timeout").invalid(Problem::LoopTimeoutShort { least, found }));
        }
        if self.downlink_interval >= self.loop_interval {
            let [limit, found] = [self.loop_interval, self.downlink_interval].map(duration::format);
            return Err(
                Path::Field(path, "downlink_interval").invalid(Problem::DownlinkSlow { limit, found })
            );
        }
        Ok(())
    }

    pub(crate) fn read(reader: &Reader<'_>) -> Result<Self, Invalid> {
        let object = reader.object(FIELDS)?;
        let time = |name| object.required(name)?.duration();
        let count = |name, max: u32| object.required(name)?.narrow(1, max);
        let parameters = Self {
            layers: object.required("layers")?.narrow(1, MAX_LAYERS)?,
            mean_delay: time("mean_delay")?,
            max_delay: time("max_delay")?,
            main_interval: time("main_interval")?,
            loop_interval: time("loop_interval")?,
            drop_interval: time("drop_interval")?,
            mix_loop_interval: time("mix_loop_interval")?,
            loop_timeout: time("loop_timeout")?,
            downlink_interval: time("downlink_interval")?,
            mailbox_packets: count("mailbox_packets", MAILBOX_PACKETS_MAX)?,
            mailbox_retention: time("mailbox_retention")?,
            clients_per_gateway: count("clients_per_gateway", CLIENTS_MAX)?,
            admitted_rate: count("admitted_rate", RATE_MAX)?,
        };
        parameters.validate_at(reader.path())?;
        Ok(parameters)
    }

    pub(crate) fn to_json(&self) -> Json {
        let time = |value| Json::String(duration::format(value));
        let count = |value: u32| Json::Integer(value.into());
        Json::object([
            ("layers", count(self.layers.into())),
            ("mean_delay", time(self.mean_delay)),
            ("max_delay", time(self.max_delay)),
            ("main_interval", time(self.main_interval)),
            ("loop_interval", time(self.loop_interval)),
            ("drop_interval", time(self.drop_interval)),
            ("mix_loop_interval", time(self.mix_loop_interval)),
            ("loop_timeout", time(self.loop_timeout)),
            ("downlink_interval", time(self.downlink_interval)),
            ("mailbox_packets", count(self.mailbox_packets)),
            ("mailbox_retention", time(self.mailbox_retention)),
            ("clients_per_gateway", count(self.clients_per_gateway)),
            ("admitted_rate", count(self.admitted_rate)),
        ])
    }
}
