//! Plays many clients at once, which send each other packets without cover, each as soon as an earlier one has come: as many
//! are on their way as it is told.
//!
//! Each client has keys, a link, an account on the chain and a store of tickets of its own, and does what a client has to
//! do on its link. What they do not have is messages: a packet's plaintext says who sent it and when. They are built, and
//! opened, in batches over all clients.
//!
//! | command | what it does | answer |
//! |---|---|---|
//! | `run N S` | for S seconds sends, N packets on their way from the first quarter on, then waits until nothing comes any more | a line of JSON |

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tombola_client::Home;
use tombola_link::{CLIENT_PROTOCOL, LinkConfig, LinkSecret, Links, Peer, Policy};
use tombola_mixing::{Rng, Time};
use tombola_node::clock::Clock;
use tombola_node::derive::random_seed;
use tombola_node::driver::{self, Machine};
use tombola_node::egress::Outlet;
use tombola_node::entry::{RunFlags, print_line};
use tombola_node::ingress::{InputSink, LinkChange};
use tombola_node::keys::{Link, SecretFile, Sphinx};
use tombola_node::logging::LogFormat;
use tombola_node::payment_client::{ClientChain, ClientPayer, ClientWatch};
use tombola_node::purse::{FILE, Purse};
use tombola_node::shutdown::Shutdown;
use tombola_protocol::frame::{Frame, FrameKind, Parity};
use tombola_protocol::packet::{End, FirstLink, PacketBuilder, Wanted};
use tombola_protocol::payment::{CONTROL_EVERY, EpochPrices, Fact, Payments, Side, Terms};
use tombola_protocol::replay::TagFilter;
use tombola_protocol::view::EpochView;
use tombola_sphinx::{
    Admission, PACKET_LEN, RelaySecrets, Routing, SecretKey, payload_of, plaintext, unwrap_batch,
    verify_batch,
};
use tombola_tickets::Address;
use tombola_topology::{IdentityKey, MailboxId};

use super::measure::quantile;
use super::{lock, read_commands};

/// Packets that are built at a time: one for each lane.
const TOGETHER: usize = 8;
/// Mail that is opened at a time.
const OPENED_TOGETHER: usize = 16;
/// How often everybody is looked after.
const LOOK: Duration = Duration::from_millis(100);
/// Nothing comes any more if nothing came for so long.
const SILENCE: Duration = Duration::from_secs(12);
/// In so many steps, over the first quarter of a run, as many packets get on their way as are kept there.
const STEPS: usize = 50;
/// A client's plaintexts: when it was sent.
const PLAINTEXT: usize = 8;

enum Input {
    Link(usize, bool),
    Frame(usize, Frame),
    Fact(usize, Fact),
    /// So many more packets may be on their way.
    More(usize),
    /// Nothing more is sent.
    Stop,
}

/// One client.
struct One {
    gateway: IdentityKey,
    end: End,
    key: SecretKey,
    payments: Payments,
    purse: Purse,
    is_up: bool,
    /// The last mail that came, none before it missing.
    arrived: u64,
    since_control: u32,
}

#[derive(Default)]
struct Book {
    sent: u64,
    /// When each came, and how long it took in seconds.
    arrived: Vec<(Time, f64)>,
    last: Option<Instant>,
    /// Clients that could send now.
    able: usize,
}

/// All of them.
struct Crowd {
    view: Arc<EpochView>,
    clock: Clock,
    ones: Vec<One>,
    builder: PacketBuilder,
    rng: Rng,
    seen: TagFilter,
    /// Packets that may leave.
    more: usize,
    stopped: bool,
    mails: Vec<(usize, Mail)>,
    out: VecDeque<(usize, Frame)>,
    next_look: Time,
    book: Arc<Mutex<Book>>,
}

struct Mail(Frame);

impl AsMut<[u8; PACKET_LEN]> for Mail {
    fn as_mut(&mut self) -> &mut [u8; PACKET_LEN] {
        self.0.packet_mut()
    }
}

/// Nobody pays a client.
struct Free;

impl Admission for Free {
    type Refused = Infallible;

    fn admit(&self, _: &RelaySecrets, _: &Routing) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Crowd {
    fn link(&mut self, now: Time, at: usize, up: bool) {
        let one = &mut self.ones[at];
        one.is_up = up;
        if up {
            one.payments.open_gateway(now, one.gateway);
            self.out.push_back((at, Frame::collect(true, one.arrived)));
            self.control(now, at);
        } else {
            one.payments.handle_link(now, one.gateway, false);
        }
    }

    fn control(&mut self, now: Time, at: usize) {
        let one = &mut self.ones[at];
        one.since_control = 0;
        self.out.push_back((at, one.payments.take_control(now, &one.gateway, Frame::zeroed())));
    }

    fn frame(&mut self, now: Time, at: usize, frame: Frame) {
        let one = &mut self.ones[at];
        match frame.kind() {
            Ok(FrameKind::Control) => one.payments.handle_control(now, &one.gateway, frame).unwrap(),
            Ok(FrameKind::Mail) => {
                if frame.mail_previous() <= one.arrived {
                    one.arrived = one.arrived.max(frame.mail_number());
                }
                self.mails.push((at, Mail(frame)));
                if self.mails.len() >= OPENED_TOGETHER {
                    self.open();
                }
            }
            other => panic!("a gateway sends {other:?}"),
        }
    }

    /// Opens what came.
    fn open(&mut self) {
        if self.mails.is_empty() {
            return;
        }
        let Self { ones, mails, seen, .. } = self;
        let (owners, mut packets): (Vec<usize>, Vec<Mail>) = mails.drain(..).unzip();
        let mut admitted = Vec::with_capacity(packets.len());
        verify_batch(
            &mut packets,
            |at| &ones[owners[at]].key,
            |_, verified| {
                // Mail whose number was not acknowledged in time comes again, and is a replay then.
                let Ok(fresh) = verified.expect("who sends here makes no mistakes").check_fresh(seen) else {
                    return;
                };
                let Ok(packet) = fresh.admit(&Free);
                admitted.push(packet);
            },
        );
        let mut is_final = Vec::new();
        unwrap_batch(admitted, |_, unwrapped| is_final.push(matches!(unwrapped.routing, Routing::Final(_))));
        assert!(is_final.iter().all(|is_final| *is_final), "a client is the last hop");
        let now = self.clock.now();
        let mut book = lock(&self.book);
        for mail in packets {
            // A replay is not unwrapped: it has no plaintext.
            let Ok(text) = plaintext(payload_of(mail.0.packet())) else { continue };
            let sent = Time::from_nanos(u64::from_le_bytes(text[..PLAINTEXT].try_into().unwrap()));
            book.arrived.push((now, (now - sent).as_secs_f64()));
            book.last = Some(Instant::now());
            self.more += usize::from(!self.stopped);
        }
    }

    /// Builds and sends what may leave.
    fn send(&mut self, now: Time) {
        while self.more > 0 {
            let parity = self.view.parity();
            // Whoever can pay, beginning anywhere: nobody is preferred.
            let first = self.draw();
            let count = self.ones.len();
            let able = (0..count).map(|step| (first + step * 7919) % count);
            let mut senders = Vec::with_capacity(TOGETHER);
            for at in able.take(4 * TOGETHER) {
                let one = &mut self.ones[at];
                if one.is_up && one.payments.may_send_first(now, &one.gateway, parity).is_ok() {
                    senders.push(at);
                    if senders.len() >= self.more.min(TOGETHER) {
                        break;
                    }
                }
            }
            if senders.is_empty() {
                return;
            }
            self.more -= senders.len();
            let view = Arc::clone(&self.view);
            let text = now.as_nanos().to_le_bytes();
            let drawn: Vec<_> = senders
                .iter()
                .map(|_| (self.draw(), view.draw_route(self.builder.rng()), self.builder.identifier()))
                .collect();
            let wanted: Vec<_> = drawn
                .iter()
                .map(|(to, mixes, identifier)| {
                    let end = &self.ones[*to].end;
                    Wanted { view: &view, mixes, end, identifier: *identifier, plaintext: &text }
                })
                .collect();
            let built = self.builder.build_batch(FirstLink::FromClient, &wanted);
            for (at, prepared) in senders.into_iter().zip(built) {
                let one = &mut self.ones[at];
                let mut frame = prepared.frame;
                frame.set_acknowledged(one.arrived as u16);
                // It was asked before, but for one that was drawn twice.
                let Ok(frame) = one.payments.send_first(now, &one.gateway, frame) else {
                    self.more += 1;
                    continue;
                };
                self.out.push_back((at, frame));
                lock(&self.book).sent += 1;
                one.since_control += 1;
                if one.since_control >= CONTROL_EVERY {
                    self.control(now, at);
                }
            }
        }
    }

    fn draw(&mut self) -> usize {
        usize::try_from(self.rng.below(self.ones.len() as u64)).unwrap()
    }

    fn look(&mut self, now: Time) {
        self.next_look = now + LOOK;
        let (parity, mut able) = (self.view.parity(), 0);
        for at in 0..self.ones.len() {
            let one = &mut self.ones[at];
            while one.payments.poll_output(now).is_some() {}
            // Nobody pays with the clock here, so there are slots by time.
            one.since_control += u32::from(one.is_up);
            if one.since_control >= CONTROL_EVERY {
                self.control(now, at);
            }
            let one = &mut self.ones[at];
            one.purse.serve(&mut one.payments);
            able += usize::from(one.is_up && one.payments.may_send_first(now, &one.gateway, parity).is_ok());
        }
        lock(&self.book).able = able;
    }
}

impl Machine for Crowd {
    type Input = Input;
    type Output = (usize, Frame);

    fn handle(&mut self, now: Time, input: Input) {
        let of = match input {
            Input::Link(at, up) => {
                self.link(now, at, up);
                at
            }
            Input::Frame(at, frame) => {
                self.frame(now, at, frame);
                at
            }
            Input::Fact(at, fact) => {
                let one = &mut self.ones[at];
                one.payments.handle_fact(now, fact);
                one.purse.serve(&mut one.payments);
                return one.purse.note_fact();
            }
            Input::More(count) => {
                (self.more, self.stopped) = (self.more + count, false);
                return;
            }
            Input::Stop => {
                (self.more, self.stopped) = (0, true);
                return;
            }
        };
        let one = &mut self.ones[of];
        one.purse.serve(&mut one.payments);
    }

    fn poll_output(&mut self, now: Time) -> Option<(usize, Frame)> {
        if now >= self.next_look {
            self.look(now);
        }
        if self.out.is_empty() {
            self.open();
            self.send(now);
        }
        self.out.pop_front()
    }

    fn poll_timeout(&mut self) -> Option<Time> {
        Some(self.next_look)
    }
}

/// Plays the clients of these folders until standard input ends.
///
/// # Panics
/// Something is not as it should be.
pub fn play(homes: &[PathBuf]) {
    let flags =
        RunFlags { exit_with_stdin: false, log_format: LogFormat::Text, log: Some("warn".to_owned()) };
    flags.init_logging().unwrap();
    flags.runtime(0).unwrap().block_on(serve(homes));
}

async fn serve(homes: &[PathBuf]) {
    let (clock, stop) = (Clock::start(), Shutdown::new());
    let (inputs, received) = driver::inputs(8192);
    let (mut ones, mut ways, mut watches) = (Vec::new(), Vec::new(), Vec::new());
    let mut chain = None;
    let mut view = None;
    for (at, path) in homes.iter().enumerate() {
        let home = Home::open(path).unwrap();
        let config = home.payment().unwrap().unwrap();
        let link =
            LinkSecret::from_seed(*SecretFile::<Link>::new(path.join("link.key")).load().unwrap().expose());
        let key = SecretKey::from_bytes(
            *SecretFile::<Sphinx>::new(path.join("sphinx.key")).load().unwrap().expose(),
        );
        let view: &mut Arc<EpochView> = view.get_or_insert_with(|| Arc::clone(home.view()));
        let network =
            tombola_node::membership::load_network(&path.join("network.json"), &authority(path)).unwrap();
        if chain.is_none() {
            chain = Some(ClientChain::open(&config, &network, &stop).await.unwrap());
        }
        let gateway = view.gateway(&home.gateway()).unwrap();
        let node = view.epoch().node(gateway).unwrap();
        let account = Address::from(node.account.unwrap().0);
        let file = path.join(FILE);
        let payer = ClientPayer {
            signer: config.signer(home.folder()).unwrap(),
            gateway: account,
            file: &file,
            me: link.identity(),
            clock,
            parameters: view.parameters(),
        };
        let telling = inputs.clone();
        let tell = move |fact| {
            let inputs = telling.clone();
            async move { inputs.pass(Input::Fact(at, fact)).await }
        };
        let chain = chain.as_ref().unwrap();
        let (mut payments, purse, watch): (Payments, Purse, ClientWatch) =
            chain.start(payer, Arc::default(), tell, &stop).await.unwrap();
        let class = EpochPrices::of(view).and_then(|prices| prices.client()).unwrap();
        let terms = Terms { account, class };
        let parity: Parity = view.parity();
        payments.set_terms(clock.now(), home.gateway(), Side::Paying, parity, Some(terms));
        let mut settings = LinkConfig::new(link.clone(), Policy::DialOnly, CLIENT_PROTOCOL);
        settings.outbound_queue = 1024;
        settings.pool = 64;
        let sink = InputSink::new(inputs.clone(), move |change| match change {
            LinkChange::Connected(_) => Input::Link(at, true),
            LinkChange::Disconnected(_) => Input::Link(at, false),
            LinkChange::Frame(_, frame) => Input::Frame(at, frame),
        })
        .without_padding();
        ways.push((settings, Peer::dialled(home.gateway(), node.client_addresses.clone()), sink));
        let mailbox = MailboxId::of(&link.identity());
        let end = End::Client { gateway, mailbox, key: key.public_key() };
        let gateway = home.gateway();
        ones.push(One { gateway, end, key, payments, purse, is_up: false, arrived: 0, since_control: 0 });
        watches.push(watch);
    }
    let book = Arc::<Mutex<Book>>::default();
    let crowd = Crowd {
        view: view.unwrap(),
        clock,
        ones,
        builder: PacketBuilder::new(Rng::from_seed(random_seed().unwrap())),
        rng: Rng::from_seed(random_seed().unwrap()),
        seen: TagFilter::new(1 << 24, 1),
        more: 0,
        stopped: true,
        mails: Vec::new(),
        out: VecDeque::new(),
        next_look: Time::ZERO,
        book: Arc::clone(&book),
    };
    let many = ways.len();
    watches.iter_mut().for_each(ClientWatch::begin);
    let mut links: Vec<(Links, IdentityKey, Outlet)> = Vec::new();
    for (settings, peer, sink) in ways {
        let gateway = peer.identity;
        let up = tombola_link::start(settings, vec![peer], Arc::new(sink)).await.unwrap();
        links.push((up, gateway, Outlet::default()));
    }
    let deliver = move |(at, frame): (usize, Frame)| {
        let (links, gateway, outlet) = &mut links[at];
        drop(outlet.send(links, gateway, frame));
    };
    let _driver = driver::spawn_task("crowd", clock, crowd, received, deliver, stop.clone()).unwrap();
    while lock(&book).able < many {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    print_line("ready");
    let mut commands: mpsc::UnboundedReceiver<String> = read_commands();
    while let Some(command) = commands.recv().await {
        let words: Vec<&str> = command.split(' ').collect();
        let ["run", window, seconds] = words[..] else { panic!("no command: {command}") };
        let (window, seconds): (usize, f64) = (window.parse().unwrap(), seconds.parse().unwrap());
        *lock(&book) = Book { last: Some(Instant::now()), ..Book::default() };
        let begun = clock.now();
        let end = tokio::time::Instant::now() + Duration::from_secs_f64(seconds);
        // Little by little: a network that stands still has no room for all at once.
        for step in 0..STEPS {
            let more = window * (step + 1) / STEPS - window * step / STEPS;
            assert!(inputs.pass(Input::More(more)).await);
            tokio::time::sleep(Duration::from_secs_f64(seconds / 4.0 / STEPS as f64)).await;
        }
        tokio::time::sleep_until(end).await;
        assert!(inputs.pass(Input::Stop).await);
        let ended = clock.now();
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let book = lock(&book);
            if book.arrived.len() as u64 >= book.sent || book.last.is_none_or(|last| last.elapsed() > SILENCE)
            {
                break;
            }
        }
        let book = std::mem::take(&mut *lock(&book));
        // The first packets take their time to come.
        let from = begun + (ended - begun) / 2;
        let counted = book.arrived.iter().filter(|(at, _)| *at >= from && *at < ended).count();
        let mut took: Vec<f64> = book.arrived.iter().map(|(_, took)| *took).collect();
        took.sort_by(f64::total_cmp);
        print_line(serde_json::json!({
            "event": "run",
            "sent": book.sent,
            "arrived": book.arrived.len(),
            "packets_per_s": counted as f64 / (ended - from).as_secs_f64(),
            "p50_s": quantile(&took, 0.5),
            "p99_s": quantile(&took, 0.99),
        }));
    }
}

/// The key that signs documents, from a client's settings.
fn authority(home: &std::path::Path) -> tombola_topology::AuthorityKey {
    let settings: toml::Table = std::fs::read_to_string(home.join("client.toml")).unwrap().parse().unwrap();
    settings["authority"].as_str().unwrap().parse().unwrap()
}
