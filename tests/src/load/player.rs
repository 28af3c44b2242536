//! Plays the neighbours of a node: mix nodes that do all that a mix node does but hold packets and pass them on.
//!
//! It is told what to do on standard input, a line for each command, and answers on standard output:
//!
//! | command | what it does | answer |
//! |---|---|---|
//! | `build N` | builds N packets, from each played node in turn, through the node under load to a random one behind it | `built` |
//! | `send R` | sends what was built, R packets a second in all, at exponential intervals; of those that cannot be paid for yet as many wait as at a real node, and the others are given up | `sent`, when all have left or were given up |
//! | `push R` | the same, but none is given up | `sent`, when all have left |
//! | `wait N` | waits for so many packets | `arrived`, or `missing` after ten seconds without any |
//! | `report FILE` | writes down all that was sent and has arrived since the last report | `reported` |

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at};
use tombola_link::{BATCH, FrameSink, LinkConfig, NODE_PROTOCOL, Policy, Taken};
use tombola_mixing::{Rng, Time};
use tombola_mixnode::Config;
use tombola_node::clock::Clock;
use tombola_node::driver::{self, Inputs, Machine};
use tombola_node::egress::Egress;
use tombola_node::entry::{RunFlags, Service, print_line};
use tombola_node::hop::{Hop, HopConfig, INPUTS};
use tombola_node::ingress::{InputSink, LinkChange};
use tombola_node::logging::LogFormat;
use tombola_node::opening::ToOpeners;
use tombola_node::payment::PaymentInput;
use tombola_node::purse::Purse;
use tombola_protocol::frame::{Frame, FrameKind, Parity};
use tombola_protocol::opener::{Inbound, Occupancy, Opened, Order};
use tombola_protocol::packet::{End, FirstLink, PacketBuilder, Wanted};
use tombola_protocol::payment::{Fact, PaymentOutput, Payments, Unpaid};
use tombola_protocol::view::EpochView;
use tombola_tickets::WindowClaim;
use tombola_topology::{IdentityKey, NodeIndex, Role};

use super::{lock, read_commands};

/// Packets that wait at a played node until they can be paid for; beyond, they are given up, as by a real one.
const WAITING_MAX: usize = 1024;
/// Packets that are built at a time.
const BUILT_AT_ONCE: usize = 64;
/// Frames that may wait for the node under load.
const QUEUE: usize = 4096;
/// How often a played node opens what came. Each has its turn within it: with four of them these are more than a millisecond
/// apart, which is what the runtime's timers can tell.
const GATHERED: Duration = Duration::from_millis(5);

/// What happened to a packet, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It left the played node of this number, with this delay for the node under load.
    Sent { packet: u64, player: u64, at: u64, delay: u64 },
    /// The played node of this number could not pay for it.
    GivenUp { packet: u64, player: u64 },
    /// It came.
    Arrived { packet: u64, at: u64 },
}

impl Entry {
    const LEN: usize = 33;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let (kind, fields) = match self {
            Self::Sent { packet, player, at, delay } => (0, [packet, player, at, delay]),
            Self::GivenUp { packet, player } => (1, [packet, player, 0, 0]),
            Self::Arrived { packet, at } => (2, [packet, at, 0, 0]),
        };
        let mut bytes = [kind; Self::LEN];
        for (place, field) in bytes[1..].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = [0; 4];
        for (field, place) in fields.iter_mut().zip(bytes.get(1..)?.chunks_exact(8)) {
            *field = u64::from_le_bytes(place.try_into().ok()?);
        }
        let [packet, second, third, fourth] = fields;
        match bytes[0] {
            0 => Some(Self::Sent { packet, player: second, at: third, delay: fourth }),
            1 => Some(Self::GivenUp { packet, player: second }),
            2 => Some(Self::Arrived { packet, at: second }),
            _ => None,
        }
    }

    /// Reads a report.
    pub fn read(file: &Path) -> Vec<Self> {
        let bytes = std::fs::read(file).unwrap();
        bytes.chunks_exact(Self::LEN).map(|bytes| Self::from_bytes(bytes).unwrap()).collect()
    }
}

/// What all played nodes have seen.
#[derive(Default)]
struct Book {
    entries: Vec<Entry>,
    /// Packets that were built and have neither left nor been given up.
    left: usize,
    arrived: u64,
    last: Option<Instant>,
}

type SharedBook = Arc<Mutex<Book>>;

/// A packet that was built.
struct Packet {
    number: u64,
    delay: u64,
    frame: Frame,
}

enum Input {
    Opened(Opened),
    Link(IdentityKey, bool),
    Control(IdentityKey, Frame),
    Fact(Fact),
    Durable(u64),
    Stock(Vec<Packet>),
    /// At this mean interval; of those that cannot be paid for so many wait.
    Send(Duration, usize),
}

enum Output {
    Frame(IdentityKey, Frame),
    Claim(Box<WindowClaim>),
}

/// One played node.
struct Player {
    number: u64,
    node: IdentityKey,
    parity: Parity,
    clock: Clock,
    payments: Payments,
    purse: Purse,
    occupancy: Occupancy,
    rng: Rng,
    /// In the order in which they leave.
    stock: std::collections::VecDeque<Packet>,
    /// Those whose time has come.
    due: usize,
    interval: Duration,
    waiting_max: usize,
    next: Option<Time>,
    /// Whether the last try to pay was in vain, and nothing has happened since.
    stuck: bool,
    ready: Option<mpsc::UnboundedSender<()>>,
    book: SharedBook,
}

impl Player {
    fn keep(&mut self) {
        self.purse.serve(&mut self.payments);
    }

    fn opened(&mut self, now: Time, opened: Opened) {
        self.occupancy.give_back();
        let (parity, number) = (opened.frame.parity(), opened.frame.number());
        let Order::End { identifier } = opened.order else { return };
        if self.payments.accept(now, &opened.from, parity, number, opened.ticket, None).is_ok() {
            let packet = u64::from_le_bytes(identifier[8..].try_into().unwrap());
            let at = self.clock.unix_nanos(opened.arrived);
            let mut book = lock(&self.book);
            book.entries.push(Entry::Arrived { packet, at });
            book.arrived += 1;
            book.last = Some(Instant::now());
        }
    }

    /// Those whose time has come are due; more than a real node would keep are given up.
    fn look(&mut self, now: Time) {
        while let Some(next) = self.next.filter(|next| *next <= now) {
            if self.due >= self.stock.len() {
                self.next = None;
                return;
            }
            self.due += 1;
            self.next = Some(next + self.rng.exponential(self.interval));
        }
        while self.due > self.waiting_max
            && let Some(packet) = self.stock.remove(self.due - 1)
        {
            self.due -= 1;
            let mut book = lock(&self.book);
            book.entries.push(Entry::GivenUp { packet: packet.number, player: self.number });
            book.left -= 1;
        }
    }

    fn send(&mut self, now: Time) -> Option<Output> {
        if self.due == 0 || self.stuck {
            return None;
        }
        let Packet { number, delay, frame } = self.stock.pop_front()?;
        match self.payments.send_first(now, &self.node, frame) {
            Ok(frame) => {
                self.due -= 1;
                let at = self.clock.unix_nanos(self.clock.now());
                let mut book = lock(&self.book);
                book.entries.push(Entry::Sent { packet: number, player: self.number, at, delay });
                book.left -= 1;
                Some(Output::Frame(self.node, frame))
            }
            Err((Unpaid::Stop(_), frame)) => {
                self.stuck = true;
                self.stock.push_front(Packet { number, delay, frame });
                None
            }
            Err((why, _)) => panic!("a packet cannot be paid for: {why}"),
        }
    }
}

impl Machine for Player {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Time, input: Input) {
        self.stuck = false;
        match input {
            Input::Opened(opened) => self.opened(now, opened),
            Input::Link(peer, up) => self.payments.handle_link(now, peer, up),
            Input::Control(from, frame) => drop(self.payments.handle_control(now, &from, frame)),
            Input::Fact(fact) => {
                self.payments.handle_fact(now, fact);
                self.keep();
                self.purse.note_fact();
            }
            Input::Durable(count) => self.payments.set_durable(count),
            Input::Stock(packets) => self.stock.extend(packets),
            Input::Send(interval, waiting_max) => {
                (self.interval, self.waiting_max) = (interval, waiting_max);
                self.next = Some(now + self.rng.exponential(interval));
            }
        }
        self.keep();
    }

    fn poll_output(&mut self, now: Time) -> Option<Output> {
        while let Some(output) = self.payments.poll_output(now) {
            self.keep();
            match output {
                PaymentOutput::Send { to, frame } => return Some(Output::Frame(to, frame)),
                PaymentOutput::Claim(claim) => return Some(Output::Claim(Box::new(claim))),
                PaymentOutput::Watch { .. } | PaymentOutput::Forget { .. } | PaymentOutput::Settled(_) => {}
            }
        }
        if self.ready.is_some() && self.payments.may_send_first(now, &self.node, self.parity).is_ok() {
            self.ready = None;
        }
        self.look(now);
        let output = self.send(now);
        self.keep();
        output
    }

    fn poll_timeout(&mut self) -> Option<Time> {
        let payments = self.payments.poll_timeout();
        Some(self.next.map_or(payments, |next| next.min(payments)))
    }
}

/// What a process plays.
#[derive(Clone, Debug)]
pub struct Cast {
    /// The folder of the network.
    pub folder: PathBuf,
    /// The folders of the played nodes.
    pub homes: Vec<PathBuf>,
    /// The place of the node under load in the list of nodes.
    pub node: u32,
    /// Whether the played nodes send to it.
    pub sends: bool,
}

impl Cast {
    /// As arguments of [`program`](super::program).
    pub fn to_args(&self) -> Vec<String> {
        let homes = self.homes.iter().map(|home| home.display().to_string());
        let (folder, node) = (self.folder.display().to_string(), self.node.to_string());
        [folder, node, self.sends.to_string()].into_iter().chain(homes).collect()
    }

    /// As they were written.
    pub fn from_args(args: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut args = args.into_iter();
        let (folder, node, sends) = (args.next()?.into(), args.next()?, args.next()?);
        let homes = args.map(PathBuf::from).collect();
        Some(Self { folder, homes, node: node.parse().ok()?, sends: sends.parse().ok()? })
    }
}

/// Plays until standard input ends.
///
/// # Panics
/// Something is not as it should be.
pub fn play(cast: &Cast) {
    let flags =
        RunFlags { exit_with_stdin: false, log_format: LogFormat::Text, log: Some("warn".to_owned()) };
    flags.init_logging().unwrap();
    flags.runtime(threads(cast)).unwrap().block_on(serve(cast, &flags));
}

/// How many threads links have, and how many open packets. None before the node, where next to nothing is to be opened: one
/// thread does everything. One each behind it, so that what comes while packets are opened is noted at once.
fn threads(cast: &Cast) -> usize {
    usize::from(!cast.sends)
}

async fn serve(cast: &Cast, flags: &RunFlags) {
    let service = Service::start(flags, None).await.unwrap();
    let book = SharedBook::default();
    let mut players = Vec::new();
    let (ready, mut readiness) = mpsc::unbounded_channel();
    let mut view = None;
    let count = u32::try_from(cast.homes.len()).unwrap();
    let mut turn = Instant::now();
    for (number, home) in (0..).zip(&cast.homes) {
        let (inputs, of) = start(cast, home, number, &service, &book, ready.clone(), turn).await;
        turn += GATHERED / count;
        players.push(inputs);
        view = Some(of);
    }
    let view = view.unwrap();
    drop(ready);
    if cast.sends {
        // Each drops its end when it can pay.
        while readiness.recv().await.is_some() {}
    }
    print_line("ready");

    let mut commands = read_commands();
    let mut builder = Some(PacketBuilder::new(Rng::from_seed(tombola_node::derive::random_seed().unwrap())));
    let mut built = 0;
    while let Some(command) = commands.recv().await {
        let (word, argument) = command.split_once(' ').unwrap();
        match word {
            "build" => {
                let count: u64 = argument.parse().unwrap();
                let (view, node, many) = (Arc::clone(&view), NodeIndex(cast.node), players.len());
                let mut own = builder.take().unwrap();
                let work = move || {
                    let stocks = build(&mut own, &view, node, many, built..built + count);
                    (own, stocks)
                };
                let (own, stocks) = tokio::task::spawn_blocking(work).await.unwrap();
                builder = Some(own);
                built += count;
                lock(&book).left += usize::try_from(count).unwrap();
                for (player, stock) in players.iter().zip(stocks) {
                    assert!(player.pass(Input::Stock(stock)).await);
                }
                print_line("built");
            }
            "send" | "push" => {
                let rate: f64 = argument.parse().unwrap();
                for player in &players {
                    let interval = Duration::from_secs_f64(players.len() as f64 / rate);
                    let waiting_max = if word == "push" { usize::MAX } else { WAITING_MAX };
                    assert!(player.pass(Input::Send(interval, waiting_max)).await);
                }
                while lock(&book).left > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                print_line("sent");
            }
            "wait" => {
                let wanted: u64 = argument.parse().unwrap();
                lock(&book).last = Some(Instant::now());
                let arrived = loop {
                    let (arrived, last) = {
                        let book = lock(&book);
                        (book.arrived, book.last.unwrap())
                    };
                    if arrived >= wanted || last.elapsed() > Duration::from_secs(10) {
                        break arrived;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                };
                print_line(if arrived >= wanted { "arrived" } else { "missing" });
            }
            "report" => {
                let entries = std::mem::take(&mut lock(&book).entries);
                let mut file = std::io::BufWriter::new(std::fs::File::create(argument).unwrap());
                entries.iter().for_each(|entry| file.write_all(&entry.to_bytes()).unwrap());
                file.flush().unwrap();
                print_line("reported");
            }
            other => panic!("no command: {other}"),
        }
    }
}

/// Builds packets with these numbers, for each played node its own.
fn build(
    builder: &mut PacketBuilder,
    view: &EpochView,
    node: NodeIndex,
    players: usize,
    numbers: std::ops::Range<u64>,
) -> Vec<Vec<Packet>> {
    let (behind, mixes) = (view.epoch().successors(node).to_vec(), [node]);
    let mut stocks: Vec<Vec<Packet>> = (0..players).map(|_| Vec::new()).collect();
    let numbers: Vec<u64> = numbers.collect();
    for numbers in numbers.chunks(BUILT_AT_ONCE) {
        let ends: Vec<End> = numbers
            .iter()
            .map(|_| {
                let at = builder.rng().below(behind.len() as u64);
                End::Node(behind[usize::try_from(at).unwrap()])
            })
            .collect();
        let wanted: Vec<_> = ends
            .iter()
            .zip(numbers)
            .map(|(end, number)| {
                let mut identifier = [1; 16];
                identifier[8..].copy_from_slice(&number.to_le_bytes());
                Wanted { view, mixes: &mixes, end, identifier, plaintext: &[] }
            })
            .collect();
        for (prepared, number) in builder.build_batch(FirstLink::FromNode, &wanted).into_iter().zip(numbers) {
            let delay = u64::try_from(prepared.delays.as_nanos()).unwrap();
            let packet = Packet { number: *number, delay, frame: prepared.frame };
            stocks[usize::try_from(*number).unwrap() % players].push(packet);
        }
    }
    stocks
}

/// What comes to one played node. It is opened many at a time, which leaves the processors to the node under load, and by one
/// played node after the other as long as this thread is on time: together they would take every processor from it. When it
/// came is noted as soon as it has been read.
struct Gathering<S> {
    clock: Clock,
    control: S,
    waiting: Mutex<Vec<Inbound>>,
}

impl<S: FrameSink> FrameSink for Gathering<S> {
    fn connected(&self, peer: &IdentityKey) -> Taken {
        self.control.connected(peer)
    }

    fn frames(&self, from: &IdentityKey, batch: &mut Vec<Frame>) {
        let arrived = self.clock.now();
        let is_control = |frame: &mut Frame| frame.kind() == Ok(FrameKind::Control);
        let mut said: Vec<Frame> = batch.extract_if(.., is_control).collect();
        let packets = batch.drain(..).map(|frame| Inbound { arrived, from: *from, frame });
        lock(&self.waiting).extend(packets);
        self.control.frames(from, &mut said);
        // What there was no room for is offered again.
        *batch = said;
    }

    fn disconnected(&self, peer: &IdentityKey) -> Taken {
        self.control.disconnected(peer)
    }
}

async fn open_together(gathering: Arc<Gathering<impl FrameSink>>, openers: ToOpeners, turn: Instant) {
    let mut turns = interval_at(turn.into(), GATHERED);
    // Missed ones are not made up for.
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        turns.tick().await;
        loop {
            let packets: Vec<Inbound> = {
                let mut waiting = lock(&gathering.waiting);
                let count = waiting.len().min(openers.room()).min(BATCH);
                waiting.drain(..count).collect()
            };
            if packets.is_empty() {
                break;
            }
            let mut refused = Vec::new();
            openers.open(packets.into_iter(), |packet| refused.push(packet));
            // In whatever order: it was noted when they came.
            if !refused.is_empty() {
                lock(&gathering.waiting).splice(0..0, refused);
                break;
            }
        }
    }
}

/// Starts one played node. It opens what has come at `turn`, which may be past, and every [`GATHERED`] from then on.
async fn start(
    cast: &Cast,
    home: &Path,
    number: u64,
    service: &Service,
    book: &SharedBook,
    ready: mpsc::UnboundedSender<()>,
    turn: Instant,
) -> (Inputs<Input>, Arc<EpochView>) {
    let config: Config = tombola_node::config::load(&home.join("node.toml")).unwrap();
    let settings = HopConfig {
        base: home,
        network: &config.network,
        authority: &config.authority,
        link_secret: &config.link_secret,
        sphinx_secret: config.sphinx_secret.as_deref(),
        sphinx_secrets: config.sphinx_secrets.as_deref(),
        data: &config.data,
        listen: &config.listen,
        workers: Some(threads(cast)),
        link_threads: threads(cast),
        places: config.places,
        payment: config.payment.as_ref(),
    };
    let hop = Hop::load(&settings, |role| matches!(role, Role::Mix { .. })).unwrap();
    let paid = hop.open_payment(&settings, service).await.unwrap().unwrap();
    let (inputs, received) = driver::inputs(INPUTS);
    let openers = hop.start_openers(&settings, &inputs, Input::Opened, service).unwrap();
    let control = InputSink::new(inputs.clone(), |change| match change {
        LinkChange::Connected(peer) => Input::Link(peer, true),
        LinkChange::Disconnected(peer) => Input::Link(peer, false),
        LinkChange::Frame(peer, frame) => Input::Control(peer, frame),
    });
    let standing = hop.standing_now();
    let view = Arc::clone(&standing.send.current);
    let node = view.epoch().node(NodeIndex(cast.node)).unwrap().identity;
    let mut links = LinkConfig::new(hop.link_secret(), Policy::Neighbours, NODE_PROTOCOL);
    links.listen = config.listen.clone();
    links.outbound_queue = QUEUE;
    let gathering = Arc::new(Gathering { clock: hop.clock, control, waiting: Mutex::default() });
    tokio::spawn(open_together(Arc::clone(&gathering), openers.way(), turn));
    // None of the others is there.
    let neighbours = standing.neighbours.iter().filter(|peer| peer.identity == node).cloned().collect();
    let links = tombola_link::start(links, neighbours, gathering).await.unwrap();

    let input_of = |input| match input {
        PaymentInput::Fact(fact) => Input::Fact(fact),
        PaymentInput::Durable(count) => Input::Durable(count),
    };
    let (mut payments, purse, bank) = paid.start(&inputs, input_of, &service.shutdown).unwrap();
    payments.handle_views(hop.clock.now(), &standing.open);
    bank.follow(&standing.open);
    let player = Player {
        number,
        node,
        parity: view.parity(),
        clock: hop.clock,
        payments,
        purse,
        occupancy: hop.occupancy.clone(),
        rng: Rng::from_seed(tombola_node::derive::random_seed().unwrap()),
        stock: std::collections::VecDeque::new(),
        due: 0,
        interval: Duration::ZERO,
        waiting_max: WAITING_MAX,
        next: None,
        stuck: false,
        ready: cast.sends.then_some(ready),
        book: Arc::clone(book),
    };
    let mut egress = Egress::new(links, Arc::clone(&hop.drops));
    let deliver = move |output| match output {
        Output::Frame(to, frame) => egress.send(&to, frame),
        Output::Claim(claim) => bank.claim(*claim),
    };
    hop.start_driver(&settings, "player", player, received, deliver, service).unwrap();
    // They live as long as the process.
    std::mem::forget((hop, openers));
    (inputs, view)
}
