//! The table of the architecture: who is where, and what may not be in the pure layers.

use std::fmt;

/// Position of a crate. A crate depends only on crates of a smaller position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// Below L1: arithmetic for several packets at a time. As pure as L1.
    Arithmetic,
    /// L1: packets, mixing, topology. No clock, task, socket or thread RNG.
    Core,
    /// Between L1 and L2: what packets earn. It uses what L1 says of packets and time, and L2 uses it. As pure as both.
    Payment,
    /// L2: the state machines. As pure as L1.
    Protocol,
    /// Beside L2: the simulator. As pure as what it runs; only tests may use it.
    Simulation,
    /// L3: what touches the outside, one crate per thing touched.
    Outside,
    /// L4: the runtime.
    Runtime,
    /// L5: the roles.
    Role,
    /// L6: the multi-call binary.
    Binary,
    /// Tests and tools, which may depend on everything and on which nobody depends.
    Beside,
}

impl Layer {
    /// Whether the crates of this layer know neither clocks nor the outside world.
    pub(super) const fn is_pure(self) -> bool {
        matches!(self, Self::Arithmetic | Self::Core | Self::Payment | Self::Protocol | Self::Simulation)
    }

    /// Whether a crate here may depend on one there.
    pub(super) fn may_use(self, other: Self) -> bool {
        other < self && (other != Self::Simulation || self == Self::Beside)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arithmetic => "below L1",
            Self::Core => "L1",
            Self::Payment => "between L1 and L2",
            Self::Protocol => "L2",
            Self::Simulation => "beside L2",
            Self::Outside => "L3",
            Self::Runtime => "L4",
            Self::Role => "L5",
            Self::Binary => "L6",
            Self::Beside => "beside the layers",
        })
    }
}

/// Every crate of the workspace. A crate that is not here is an error, so that a new one gets a considered place.
const CRATES: &[(&str, Layer)] = &[
    ("tombola-lanes", Layer::Arithmetic),
    ("tombola-sphinx", Layer::Core),
    ("tombola-mixing", Layer::Core),
    ("tombola-topology", Layer::Core),
    ("tombola-tickets", Layer::Payment),
    ("tombola-protocol", Layer::Protocol),
    ("tombola-sim", Layer::Simulation),
    ("tombola-link", Layer::Outside),
    ("tombola-storage", Layer::Outside),
    ("tombola-chain", Layer::Outside),
    ("tombola-node", Layer::Runtime),
    ("tombola-mixnode", Layer::Role),
    ("tombola-gateway", Layer::Role),
    ("tombola-client", Layer::Role),
    ("tombola", Layer::Binary),
    ("tombola-tests", Layer::Beside),
    ("tombola-differential", Layer::Beside),
    ("xtask", Layer::Beside),
];

/// The one crate that may contain `unsafe`, in one module. Its lints are those of the workspace but for that.
pub(super) const UNSAFE: &str = "tombola-lanes";
/// The files of that crate which lift the rule: the module, and the example that talks to valgrind. Sub-modules of the module
/// inherit it.
pub(super) const UNSAFE_FILES: [&str; 2] = ["examples/secrets.rs", "src/vector/mod.rs"];

/// Layer of a crate, if the table knows it.
pub(super) fn layer_of(name: &str) -> Option<Layer> {
    CRATES.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

/// A crate that the pure layers may not contain.
pub(super) struct Ban {
    /// Its name; a trailing `*` stands for any rest.
    pattern: &'static str,
    /// What is wrong with it there.
    pub(super) reason: &'static str,
}

impl Ban {
    fn matches(&self, name: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.pattern,
        }
    }
}

const RUNTIME: &str = "layers 1 and 2 have no runtime, task or thread";
const NETWORK: &str = "layers 1 and 2 have no socket";
const CHAIN: &str = "layers 1 and 2 speak to no chain";
const DATABASE: &str = "layers 1 and 2 keep nothing on disk";
const CHANNEL: &str = "layers 1 and 2 have no channels";
const CLOCK: &str = "layers 1 and 2 take the time as an argument";
const RANDOM: &str = "layers 1 and 2 take randomness as an argument";

/// Forbidden anywhere among the normal dependencies of a pure crate, however deep.
const FORBIDDEN: &[Ban] = &[
    Ban { pattern: "tokio", reason: RUNTIME },
    Ban { pattern: "tokio-*", reason: RUNTIME },
    Ban { pattern: "async-std", reason: RUNTIME },
    Ban { pattern: "async-io", reason: RUNTIME },
    Ban { pattern: "async-global-executor", reason: RUNTIME },
    Ban { pattern: "smol", reason: RUNTIME },
    Ban { pattern: "futures-executor", reason: RUNTIME },
    Ban { pattern: "futures-timer", reason: RUNTIME },
    Ban { pattern: "rayon", reason: RUNTIME },
    Ban { pattern: "libp2p", reason: NETWORK },
    Ban { pattern: "libp2p-*", reason: NETWORK },
    Ban { pattern: "quinn", reason: NETWORK },
    Ban { pattern: "quinn-*", reason: NETWORK },
    Ban { pattern: "mio", reason: NETWORK },
    Ban { pattern: "socket2", reason: NETWORK },
    Ban { pattern: "hyper", reason: NETWORK },
    Ban { pattern: "hyper-*", reason: NETWORK },
    Ban { pattern: "reqwest", reason: NETWORK },
    Ban { pattern: "alloy", reason: CHAIN },
    Ban { pattern: "alloy-contract", reason: CHAIN },
    Ban { pattern: "alloy-network", reason: CHAIN },
    Ban { pattern: "alloy-provider", reason: CHAIN },
    Ban { pattern: "alloy-pubsub", reason: CHAIN },
    Ban { pattern: "alloy-rpc-*", reason: CHAIN },
    Ban { pattern: "alloy-transport*", reason: CHAIN },
    Ban { pattern: "revm", reason: CHAIN },
    Ban { pattern: "revm-*", reason: CHAIN },
    Ban { pattern: "fjall", reason: DATABASE },
    Ban { pattern: "heed", reason: DATABASE },
    Ban { pattern: "libsqlite3-sys", reason: DATABASE },
    Ban { pattern: "lmdb*", reason: DATABASE },
    Ban { pattern: "redb", reason: DATABASE },
    Ban { pattern: "rocksdb", reason: DATABASE },
    Ban { pattern: "rusqlite", reason: DATABASE },
    Ban { pattern: "sled", reason: DATABASE },
    Ban { pattern: "sqlx*", reason: DATABASE },
    Ban { pattern: "async-channel", reason: CHANNEL },
    Ban { pattern: "crossbeam-channel", reason: CHANNEL },
    Ban { pattern: "flume", reason: CHANNEL },
    Ban { pattern: "kanal", reason: CHANNEL },
];

/// Forbidden as something that a pure crate names itself. Deeper down they may be switched on by another crate's
/// features without ever being called.
const FORBIDDEN_DIRECTLY: &[Ban] = &[
    Ban { pattern: "chrono", reason: CLOCK },
    Ban { pattern: "instant", reason: CLOCK },
    Ban { pattern: "quanta", reason: CLOCK },
    Ban { pattern: "time", reason: CLOCK },
    Ban { pattern: "web-time", reason: CLOCK },
    Ban { pattern: "fastrand", reason: RANDOM },
    Ban { pattern: "getrandom", reason: RANDOM },
    Ban { pattern: "rand", reason: RANDOM },
];

/// Why a pure crate may not have this crate anywhere below it.
pub(super) fn forbidden(name: &str) -> Option<&'static Ban> {
    FORBIDDEN.iter().find(|ban| ban.matches(name))
}

/// Why a pure crate may not name this crate in its manifest.
pub(super) fn forbidden_directly(name: &str) -> Option<&'static Ban> {
    FORBIDDEN_DIRECTLY.iter().find(|ban| ban.matches(name))
}

/// What the `clippy.toml` of every pure crate must ban, per list of that file. It may ban more.
pub(super) const CLIPPY_BANS: &[(&str, &[&str])] = &[
    (
        "disallowed-methods",
        &[
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "std::thread::spawn",
            "std::thread::sleep",
            "std::sync::mpsc::channel",
        ],
    ),
    ("disallowed-types", &["std::collections::HashMap", "std::collections::HashSet"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_or_prefixes() {
        assert!(forbidden("tokio").is_some() && forbidden("tokio-util").is_some());
        assert!(forbidden("libp2p-stream").is_some() && forbidden("alloy-transport-http").is_some());
        assert!(forbidden("redb-derive").is_none() && forbidden("alloy-primitives").is_none());
        assert!(forbidden("rand").is_none() && forbidden_directly("rand").is_some());
        assert!(forbidden_directly("rand_chacha").is_none());
    }

    #[test]
    fn layers_look_down_only() {
        assert!(Layer::Protocol.may_use(Layer::Core));
        assert!(Layer::Protocol.may_use(Layer::Payment) && Layer::Payment.may_use(Layer::Core));
        assert!(!Layer::Core.may_use(Layer::Core), "siblings");
        assert!(!Layer::Core.may_use(Layer::Protocol));
        assert!(!Layer::Binary.may_use(Layer::Beside));
        assert!(Layer::Simulation.may_use(Layer::Protocol) && Layer::Beside.may_use(Layer::Simulation));
        assert!(!Layer::Outside.may_use(Layer::Simulation) && !Layer::Simulation.may_use(Layer::Outside));
    }
}
