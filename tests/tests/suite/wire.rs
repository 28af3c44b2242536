//! What an observer of the wires sees: frames of one length, as many whether or not there is something to say, and nothing
//! of what is said.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tombola_link::{CLIENT_PROTOCOL, NODE_PROTOCOL};
use tombola_protocol::frame::FRAME_LEN;
use tombola_tests::hand::{HandNetwork, Spec, port_of};
use tombola_tests::process::Process;
use tombola_tests::proxy::{From, Proxy, Seen};
use tombola_tests::records::{self, Direction};
use tombola_tests::statistics::{homogeneity, kolmogorov_smirnov};

/// What is sent, again and again. No other bytes of a connection look like it.
const SENTENCE: &str = "the walrus and the carpenter were walking close at hand; ";
/// Length of the file: on a clock of 20 ms it takes some 10 s.
const FILE_LEN: usize = 1 << 20;
/// Two traces of one source differ by more than this only once in ten thousand runs.
const P_MIN: f64 = 1e-4;
/// And two clients are alike only as long as both get a processor when they want one. If they differ in one run, another
/// shows whether that was it; what distinguishes them is there in each.
const RUNS: usize = 4;

/// Repeats a comparison until it finds nothing.
fn compare(once: impl Fn() -> Result<(), String>) {
    let mut differences = Vec::new();
    while differences.len() < RUNS {
        match once() {
            Ok(()) => return,
            Err(difference) => differences.push(difference),
        }
    }
    panic!("they can be told apart:\n{}", differences.join("\n"));
}

fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise()) }
}

/// Three clients, each a process: one sends a file, one says nothing, one receives.
struct Scene {
    sender: Process,
    idle: Process,
    receiver: Process,
    to: String,
    file: std::path::PathBuf,
}

impl Scene {
    /// Sender and idle client connect to gateway 1 one after the other; `connected` is called before each.
    fn set(network: &HandNetwork, mut connected: impl FnMut()) -> Self {
        let mut client = |name: &str, gateway: &str| {
            connected();
            let home = network.client(name, gateway);
            let save = network.folder().join("saved");
            let args = ["client", "--home", path(&home), "run", "--save", path(&save)];
            let mut process = Process::tombola(name, &args);
            let address = process.event("ready")["address"].as_str().unwrap().to_owned();
            (process, address)
        };
        let (sender, _) = client("sender", "gateway 1");
        let (idle, _) = client("idle", "gateway 1");
        let (receiver, to) = client("receiver", "gateway 2");
        let file = network.folder().join("secret-file-name");
        let mut text = SENTENCE.repeat(FILE_LEN / SENTENCE.len() + 1);
        text.truncate(FILE_LEN);
        std::fs::write(&file, text).unwrap();
        Self { sender, idle, receiver, to, file }
    }

    /// Sends a text and the file; the time between the first and the last packet of the file.
    fn send(&mut self) -> [Instant; 2] {
        let text = json!({ "send": { "to": self.to, "text": SENTENCE } });
        self.sender.tell(&text.to_string());
        assert_eq!(self.receiver.event("received")["text"], SENTENCE);
        let begun = Instant::now();
        self.sender.tell(&json!({ "send": { "to": self.to, "file": self.file } }).to_string());
        let last = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            event["event"] == "emitted" && event["index"].as_u64().map(|n| n + 1) == event["count"].as_u64()
        };
        // The first is that of the text.
        self.sender.line_where("the text's packet", last);
        self.sender.line_where("the file's last packet", last);
        let ended = Instant::now();
        assert_eq!(self.receiver.event("received")["bytes"], FILE_LEN);
        [begun, ended]
    }

    fn end(mut self) {
        for process in [&mut self.sender, &mut self.idle, &mut self.receiver] {
            process.close_input();
            assert!(process.wait().success(), "{}", process.stderr());
            assert!(!process.stderr().contains("panicked"), "{}", process.stderr());
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn assert_nothing_is_said_in_the_clear(proxy: &Proxy) {
    for needle in [&SENTENCE[..16], &SENTENCE[20..36], "secret-file-name", "sphinx", "tombola1"] {
        assert!(!proxy.shows(needle.as_bytes()), "{needle:?} is on the wire");
    }
}

/// Datagrams of one client that left together: one frame each, mostly.
struct Emission {
    at: Instant,
    sizes: Vec<usize>,
}

/// Datagrams below this length carry acknowledgements of QUIC alone: they answer what comes down, which is paced. Their
/// length varies by some bytes with the delay that they report, so with how busy this machine is.
const CARRIES_A_FRAME: usize = 200;
/// Frames are apart by 20 ms on average; the datagrams of one by some microseconds.
const TOGETHER: Duration = Duration::from_millis(1);

fn emissions(seen: &[Seen], flow: usize, [begun, ended]: [Instant; 2]) -> Vec<Emission> {
    let mut emissions: Vec<Emission> = Vec::new();
    let mut last = None;
    for datagram in seen {
        let ours =
            datagram.flow == flow && datagram.from == From::Dialler && datagram.bytes.len() > CARRIES_A_FRAME;
        if !ours || datagram.at < begun || datagram.at > ended {
            continue;
        }
        match emissions.last_mut() {
            Some(emission) if last.is_some_and(|last| datagram.at - last < TOGETHER) => {
                emission.sizes.push(datagram.bytes.len());
            }
            _ => emissions.push(Emission { at: datagram.at, sizes: vec![datagram.bytes.len()] }),
        }
        last = Some(datagram.at);
    }
    for emission in &mut emissions {
        emission.sizes.sort_unstable();
    }
    emissions
}

fn gaps(emissions: &[Emission]) -> Vec<f64> {
    emissions.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).collect()
}

/// How often each combination of lengths occurs in two traces.
fn combinations<'a>(a: &'a [Emission], b: &'a [Emission]) -> BTreeMap<&'a [usize], (u64, u64)> {
    let mut counts: BTreeMap<&[usize], (u64, u64)> = BTreeMap::new();
    a.iter().for_each(|emission| counts.entry(&emission.sizes).or_default().0 += 1);
    b.iter().for_each(|emission| counts.entry(&emission.sizes).or_default().1 += 1);
    counts
}

/// On the link between a client and its gateway one that sends a file cannot be told from one that says nothing: neither by
/// the lengths of the datagrams that a frame makes nor by the times between frames.
#[test]
fn over_quic_a_client_that_sends_looks_like_one_that_does_not() {
    compare(compare_over_quic);
}

fn compare_over_quic() -> Result<(), String> {
    let mut proxy = None;
    let mut network = HandNetwork::new(&Spec::new(3, 1, 2), |draft, nodes| {
        let at = nodes.iter().position(|node| node.name == "gateway 1").unwrap();
        let wire = Proxy::udp(port_of(&nodes[at].client_listen[0]));
        draft.epochs[0].nodes[at].client_addresses = vec![wire.address.clone()];
        proxy = Some(wire);
    });
    let proxy = proxy.unwrap();
    network.start();
    let mut flows = Vec::new();
    let mut scene = Scene::set(&network, || flows.push(proxy.flows()));
    // QUIC finds out how long a datagram may be, with probes that are longer than others.
    std::thread::sleep(Duration::from_secs(3));
    let time = scene.send();
    let seen = proxy.seen();
    let [sending, idle] = [flows[0], flows[1]].map(|flow| emissions(&seen, flow, time));
    scene.end();
    network.stop();

    let expected = (time[1] - time[0]).as_secs_f64() * 60.0;
    for trace in [&sending, &idle] {
        ensure(trace.len() > 300, || format!("{} emissions are too few to compare", trace.len()))?;
        // 50 a second on the main clock, 5 loops and 5 drops; some leave together.
        let length = trace.len();
        ensure((length as f64) < 1.2 * expected, || format!("{length} emissions, expected {expected}"))?;
    }
    let counts = combinations(&sending, &idle);
    let of_lengths = homogeneity(&counts.values().copied().collect::<Vec<_>>());
    ensure(of_lengths > P_MIN, || format!("lengths tell them apart, p = {of_lengths}: {counts:?}"))?;
    let of_gaps = kolmogorov_smirnov(&gaps(&sending), &gaps(&idle));
    ensure(of_gaps > P_MIN, || format!("times tell them apart, p = {of_gaps}"))?;

    // The test can fail: a client that sent its messages beside its cover would be found, and so would one whose messages
    // made frames of another length.
    let mut beside: Vec<Emission> = sending.into_iter().chain(idle).collect();
    beside.sort_by_key(|emission| emission.at);
    let (beside, idle) = (beside, emissions(&seen, flows[1], time));
    let found = kolmogorov_smirnov(&gaps(&beside), &gaps(&idle)) < P_MIN;
    ensure(found, || "messages beside the cover are not found".to_owned())?;
    let longer = idle.iter().map(|emission| {
        let sizes = emission.sizes.iter().map(|size| if *size > 1200 { *size } else { size + 16 });
        Emission { at: emission.at, sizes: sizes.collect() }
    });
    let longer: Vec<Emission> = longer.collect();
    assert!(homogeneity(&combinations(&longer, &idle).values().copied().collect::<Vec<_>>()) < P_MIN);

    assert_nothing_is_said_in_the_clear(&proxy);
    Ok(())
}

/// How many frames each record of one direction completes, from the first record of whole frames on: before that, protocols
/// are negotiated, alike for everybody. The two streams are negotiated each by itself, so that the last words of that can
/// come between the first frames.
fn frames_in_records(proxy: &Proxy, flow: usize, from: From, who: &str) -> Result<Vec<usize>, String> {
    let direction = Direction::of(&proxy.stream(flow, from));
    assert_eq!(direction.negotiation, ["/multistream/1.0.0", "/noise"]);
    let one_frame = records::NOISE_TAG + records::YAMUX_HEADER + FRAME_LEN;
    let records = direction.records.into_iter().enumerate().skip_while(|(_, length)| *length < one_frame);
    let records: Vec<usize> = records
        .filter(|(place, length)| *place > LAST_NEGOTIATION || !is_negotiation(*length))
        .map(|(_, length)| length)
        .collect();
    let content = records::take_apart(&records, FRAME_LEN).unwrap_or_else(|(place, length)| {
        panic!("{who}, {from:?}: record {place} has {length} bytes, which is no number of whole frames")
    });
    // Only a receiver that is starved of processor time lets its window fill up.
    ensure(content.cuts * 20 <= records.len(), || {
        format!("{who}, {from:?}: {} frames were cut", content.cuts)
    })?;
    Ok(content.frames)
}

/// No word of the negotiation comes in a later record.
const LAST_NEGOTIATION: usize = 20;

/// Whether a record holds a name of multistream-select (behind its length, with its newline), or two.
fn is_negotiation(length: usize) -> bool {
    let line = |name: &str| name.len() + 2;
    let select = line("/multistream/1.0.0");
    [line(NODE_PROTOCOL), line(CLIENT_PROTOCOL)].iter().flat_map(|own| [select, *own, select + own]).any(
        |words| (1..=2).any(|headers| words + headers * records::YAMUX_HEADER + records::NOISE_TAG == length),
    )
}

/// Over TCP an observer sees where each record of Noise begins and ends. After the negotiation a record holds whole frames,
/// each of one length, and the headers (12 bytes each) of the multiplexer, Yamux: one before each piece of data, one for
/// each enlargement of a window (after so many bytes of frames) and for each measurement of the round trip (every so many
/// seconds). Yamux cuts frames apart only where many are written at once or the receiver's window is full. Nothing else has
/// any length.
#[test]
fn over_tcp_every_record_holds_whole_frames() {
    compare(compare_over_tcp);
}

fn compare_over_tcp() -> Result<(), String> {
    let mut proxies = Vec::new();
    let mut network = HandNetwork::new(&Spec { tcp_only: true, ..Spec::new(2, 1, 2) }, |draft, nodes| {
        let at = |name: &str| nodes.iter().position(|node| node.name == name).unwrap();
        let (gateway, mix) = (at("gateway 1"), at("mix 2.1"));
        let listed = &mut draft.epochs[0].nodes;
        let clients = Proxy::tcp(port_of(&nodes[gateway].client_listen[0]));
        listed[gateway].client_addresses = vec![clients.address.clone()];
        let between = Proxy::tcp(port_of(&nodes[mix].listen[0]));
        listed[mix].addresses = vec![between.address.clone()];
        proxies = vec![clients, between];
    });
    let [clients, between] = <[Proxy; 2]>::try_from(proxies).unwrap();
    network.start();
    let mut flows = Vec::new();
    let mut scene = Scene::set(&network, || flows.push(clients.flows()));
    scene.send();
    scene.end();
    network.stop();

    let [sender, idle] = [flows[0], flows[1]];
    // Between the two nodes: layer 1 has dialled once.
    for (proxy, flow, who) in
        [(&clients, sender, "sender"), (&clients, idle, "idle client"), (&between, 0, "mix node")]
    {
        for from in [From::Dialler, From::Listener] {
            let frames: usize = frames_in_records(proxy, flow, from, who)?.iter().sum();
            // Nothing comes back on a link between nodes: it is there for the other direction of other payments.
            if who != "mix node" || from == From::Dialler {
                ensure(frames > 300, || format!("{who}, {from:?}: only {frames} frames"))?;
            }
        }
    }
    // How many frames share a record says no more of what they carry.
    let mut shared: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    let frames_of = |flow| -> Result<_, String> {
        let records = frames_in_records(&clients, flow, From::Dialler, "client")?;
        Ok(records.into_iter().filter(|&frames| frames > 0))
    };
    frames_of(sender)?.for_each(|frames| shared.entry(frames).or_default().0 += 1);
    frames_of(idle)?.for_each(|frames| shared.entry(frames).or_default().1 += 1);
    let p = homogeneity(&shared.values().copied().collect::<Vec<_>>());
    ensure(p > P_MIN, || format!("frames in a record tell them apart, p = {p}: {shared:?}"))?;

    for proxy in [&clients, &between] {
        assert_nothing_is_said_in_the_clear(proxy);
        // What is in the clear would be found.
        assert!(proxy.shows(b"/multistream/1.0.0"));
    }
    Ok(())
}
