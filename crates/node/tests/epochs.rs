//! A node's keys, its document and its folder, as epochs come and go: on real files, with made-up clocks.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure must stop the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tombola_link::LinkSecret;
use tombola_node::data::{DataError, DataFolder};
use tombola_node::keyring::{Keyring, public_key, short_id};
use tombola_node::keys::{KeyError, SecretFile, Sphinx};
use tombola_node::reload::{Documents, Lineage, ReloadError};
use tombola_node::rotation::{KeyTrouble, Rotation, RotationError, Standing};
use tombola_protocol::frame::{ClientMeta, LinkMeta, Parity};
use tombola_protocol::opener::{Inbound, Occupancy, Opened, Opener};
use tombola_protocol::packet::{End, FirstLink, PacketBuilder};
use tombola_protocol::view::EpochView;
use tombola_sphinx::SecretKey;
use tombola_topology::{
    AuthoritySecret, Draft, EpochDraft, EpochNumber, IdentityKey, Network, Node, Parameters, Refusal, Role,
    SphinxKey, UnixTime,
};

const START: u64 = 1_000_000;
/// Length of an epoch in seconds. With one layer and a longest delay of 2 s, keys take 4 s to be retired.
const LENGTH: u64 = 100;
const ME: u8 = 1;

fn link(number: u8) -> LinkSecret {
    LinkSecret::from_seed([number; 32])
}

fn identity(number: u8) -> IdentityKey {
    link(number).identity()
}

fn secret_of(number: u8, epoch: u64) -> SecretKey {
    let mut seed = [number; 32];
    seed[1] = epoch as u8; // the first byte is clamped
    SecretKey::from_bytes(seed)
}

fn sphinx(number: u8, epoch: u64) -> SphinxKey {
    SphinxKey::from_bytes(secret_of(number, epoch).public_key().to_bytes())
}

fn entry(number: u8, role: Role, epoch: u64, key: SphinxKey) -> Node {
    Node {
        role,
        identity: identity(number),
        sphinx_key: key,
        addresses: vec![format!("/ip4/127.0.0.{epoch}/tcp/{}", 1000 + u16::from(number))],
        client_addresses: if role == Role::Gateway { vec!["/ip4/127.0.0.1/tcp/1".into()] } else { vec![] },
        account: None,
    }
}

/// Node 1 under test and node 2 are mix nodes, 3 and 4 gateways.
fn epoch(number: u64, mine: Option<SphinxKey>) -> EpochDraft {
    let mut nodes = vec![
        entry(2, Role::Mix { layer: 1 }, number, sphinx(2, number)),
        entry(3, Role::Gateway, number, sphinx(3, number)),
        entry(4, Role::Gateway, number, sphinx(4, number)),
    ];
    if let Some(key) = mine {
        // Another place in each list.
        nodes.insert(number as usize % 4, entry(ME, Role::Mix { layer: 1 }, number, key));
    }
    EpochDraft {
        number: EpochNumber(number),
        valid_from: UnixTime(START + (number - 1) * LENGTH),
        valid_until: UnixTime(START + number * LENGTH),
        payment: None,
        nodes,
    }
}

fn authority() -> AuthoritySecret {
    AuthoritySecret::from_seed([9; 32])
}

fn draft(epochs: Vec<EpochDraft>) -> Draft {
    let parameters = Parameters { layers: 1, max_delay: Duration::from_secs(2), ..Parameters::default() };
    Draft { name: "epochs".into(), serial: 5, parameters, epochs }
}

fn sign(epochs: Vec<EpochDraft>) -> Network {
    draft(epochs).sign(&authority()).unwrap()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(START + seconds)
}

fn is_mix(role: Role) -> bool {
    matches!(role, Role::Mix { .. })
}

/// The files of a node, and what runs on them.
struct Bench {
    folder: TempDir,
    keys: Vec<SphinxKey>,
}

struct Running {
    rotation: Rotation,
    opener: Arc<Opener>,
    _data: Arc<DataFolder>,
}

impl Bench {
    /// With that many keys, for the epochs from 1 on.
    fn new(keys: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Self { folder, keys: vec![] };
        for number in 1..=keys {
            bench.add_key(&format!("any name {number}.key"));
        }
        bench
    }

    fn add_key(&mut self, name: &str) {
        let file = SecretFile::<Sphinx>::new(self.sphinx().join(name));
        file.generate().unwrap();
        self.keys.push(public_key(&file).unwrap());
    }

    fn sphinx(&self) -> PathBuf {
        self.folder.path().join("sphinx")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_of(&self, epoch: usize) -> PathBuf {
        self.data().join(format!("tags-{}.log", short_id(&self.keys[epoch - 1])))
    }

    fn network(&self, epochs: u64) -> Network {
        sign((1..=epochs).map(|number| epoch(number, self.keys.get(number as usize - 1).copied())).collect())
    }

    fn start(&self) -> Running {
        let data = Arc::new(DataFolder::open(&self.data()).unwrap());
        let parameters = draft(vec![]).parameters;
        let opener = Arc::new(Opener::new(&parameters, Occupancy::new(100), Arc::default()));
        let keyring = Keyring::folder(self.sphinx());
        let rotation = Rotation::new(identity(ME), is_mix, keyring, Arc::clone(&data), Arc::clone(&opener));
        Running { rotation, opener, _data: data }
    }

    /// Files with keys, in any order.
    fn key_files(&self) -> usize {
        fs::read_dir(self.sphinx())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "key"))
            .count()
    }
}

impl Running {
    fn step(&mut self, network: &Network, seconds: u64) -> Standing {
        self.rotation.step(network, at(seconds)).unwrap()
    }

    fn stop(mut self) {
        self.rotation.end();
    }

    /// Whether a packet is accepted: one that was built for this node in an epoch, by a gateway.
    fn accepts(&self, network: &Network, number: u64, seed: u8) -> bool {
        !self.opens(network, number, seed).is_empty()
    }

    fn opens(&self, network: &Network, number: u64, seed: u8) -> Vec<Opened> {
        let view = EpochView::of(network, network.epoch(EpochNumber(number)).unwrap()).unwrap();
        let me = view.epoch().index_of(&identity(ME)).unwrap();
        let mut builder = PacketBuilder::new(tombola_mixing::Rng::from_seed([seed; 32]));
        let filler = builder.filler(0);
        let end = End::Node(view.draw_gateway(builder.rng()));
        let mut frame = builder.build(&view, FirstLink::FromClient, &[me], &end, [1; 16], &filler).frame;
        // As the gateway passes it on.
        let ClientMeta { challenge, ack_check, .. } = frame.client_meta();
        frame.set_link_packet(frame.parity(), &LinkMeta { challenge, ack_check });
        let from = identity(3);
        let inbound = Inbound { arrived: tombola_mixing::Time::ZERO, from, frame };
        let (mut opened, mut spare) = (vec![], vec![]);
        self.opener.open_batch(&mut vec![inbound], &mut opened, &mut spare);
        opened
    }
}

fn open_epochs(standing: &Standing) -> Vec<u64> {
    let views = [0, 1].map(|parity| standing.open.get(Parity::of(parity)).map(|seat| seat.view().number()));
    let mut open: Vec<_> = views.into_iter().flatten().collect();
    open.sort_unstable();
    open
}

#[test]
fn keys_open_and_die_at_their_instants_and_nothing_of_them_stays() {
    let bench = Bench::new(3);
    let network = bench.network(4);
    let mut node = bench.start();
    // Layer 1 of 1: retired M = 2 s before the end of the next epoch.
    for (seconds, open, current, files) in [
        (0, vec![1], 1, 3),
        (97, vec![1], 1, 3),
        (98, vec![1, 2], 1, 3),
        (101, vec![1, 2], 1, 3),
        (102, vec![1, 2], 2, 3),
        (197, vec![1, 2], 2, 3),
        (198, vec![2, 3], 2, 2),
        (202, vec![2, 3], 3, 2),
        (298, vec![3], 3, 1),
    ] {
        let standing = node.step(&network, seconds);
        assert_eq!(open_epochs(&standing), open, "at {seconds}");
        assert_eq!(standing.send.current.number(), current, "at {seconds}");
        assert_eq!(bench.key_files(), files, "at {seconds}");
        for number in 1..=3 {
            let accepted = node.accepts(&network, number, seconds as u8);
            assert_eq!(accepted, open.contains(&number), "epoch {number} at {seconds}");
        }
        for epoch in 1..=3 {
            // Made ready with the links, 4 s before the epoch begins.
            let is_ready = seconds + 4 >= LENGTH * (epoch as u64 - 1);
            let is_dead = seconds >= LENGTH * (epoch as u64 + 1) - 2;
            assert_eq!(bench.log_of(epoch).exists(), is_ready && !is_dead, "log of {epoch} at {seconds}");
        }
    }
    // Epoch 4 does not list the node: it ends when the last key is dead.
    let standing = node.step(&network, 399);
    assert_eq!((open_epochs(&standing), bench.key_files()), (vec![], 0));
    assert!(fs::read_dir(bench.sphinx()).unwrap().next().is_none(), "marks go, too");
    let names: Vec<_> = fs::read_dir(bench.data()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lock"]);
}

#[test]
fn a_clock_that_jumps_skips_no_erasure_and_goes_back_to_no_erased_key() {
    let bench = Bench::new(4);
    let network = bench.network(5);
    let mut node = bench.start();
    node.step(&network, 10);
    let standing = node.step(&network, 350);
    assert_eq!((open_epochs(&standing), bench.key_files()), (vec![3, 4], 2));
    // Set back: what is erased is gone, and the node says so and goes on.
    let standing = node.step(&network, 150);
    assert_eq!(open_epochs(&standing), [] as [u64; 0]);
    assert!(!node.rotation.is_settled());
    let standing = node.step(&network, 351);
    assert_eq!(open_epochs(&standing), [3, 4]);
    assert!(node.rotation.is_settled() && node.accepts(&network, 3, 1));
}

#[test]
fn what_was_accepted_before_a_restart_is_refused_after_it() {
    let bench = Bench::new(2);
    let network = bench.network(2);
    let mut node = bench.start();
    node.step(&network, 150);
    for seed in 0..20 {
        assert!(node.accepts(&network, 1, seed) && node.accepts(&network, 2, seed));
    }
    assert!(!node.accepts(&network, 2, 7), "a replay");
    node.stop();
    let mut node = bench.start();
    node.step(&network, 151);
    for seed in 0..20 {
        assert!(!node.accepts(&network, 1, seed) && !node.accepts(&network, 2, seed), "{seed}");
    }
    assert!(node.accepts(&network, 2, 99), "what is new passes");
}

#[test]
fn a_packet_waits_for_its_tag_and_not_for_ever_when_the_key_dies() {
    let bench = Bench::new(2);
    let network = bench.network(2);
    let mut node = bench.start();
    node.step(&network, 0);
    let opened = node.opens(&network, 1, 1).pop().unwrap();
    opened.tag.need(Duration::ZERO);
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    while !opened.tag.is_durable() {
        assert!(std::time::Instant::now() < deadline, "never durable");
        std::thread::sleep(Duration::from_millis(1));
    }
    let last = node.opens(&network, 1, 2).pop().unwrap();
    node.step(&network, 198);
    assert!(last.tag.is_durable(), "no packet can come a second time");
}

#[test]
fn a_key_whose_log_is_gone_or_damaged_is_not_used_again() {
    for damage in [
        (|path: &Path| fs::remove_file(path).unwrap()) as fn(&Path),
        |path| fs::write(path, "").unwrap(),
        |path| fs::write(path, [7; 5000]).unwrap(),
        // With its whole folder.
        |path| fs::remove_dir_all(path.parent().unwrap()).unwrap(),
    ] {
        let bench = Bench::new(2);
        let network = bench.network(2);
        let mut node = bench.start();
        node.step(&network, 0);
        assert!(node.accepts(&network, 1, 1));
        node.stop();
        damage(&bench.log_of(1));

        let mut node = bench.start();
        assert_eq!(open_epochs(&node.step(&network, 1)), [] as [u64; 0]);
        let trouble = node.rotation.trouble(network.epoch(EpochNumber(1)).unwrap()).unwrap();
        assert!(matches!(trouble, KeyTrouble::LogMissing { .. } | KeyTrouble::Log { .. }), "{trouble}");
        let said = trouble.to_string();
        assert!(said.contains("new key") && said.contains(&bench.keys[0].to_string()), "{said}");
        assert!(!node.accepts(&network, 1, 2));
        // The next key is another matter.
        assert_eq!(open_epochs(&node.step(&network, 150)), [2]);
        assert!(node.accepts(&network, 2, 3));
        // And the bad one goes in its time.
        node.step(&network, 198);
        assert_eq!(bench.key_files(), 1);
    }
}

#[test]
fn a_log_that_a_crash_left_before_the_key_was_used_does_no_harm() {
    let bench = Bench::new(1);
    let network = bench.network(1);
    fs::create_dir(bench.data()).unwrap();
    fs::set_permissions(bench.data(), PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(bench.log_of(1), "torn").unwrap();
    let mut node = bench.start();
    assert_eq!(open_epochs(&node.step(&network, 0)), [1]);
}

#[test]
fn keys_that_the_document_does_not_name_and_keys_to_come_are_left_alone() {
    let mut bench = Bench::new(4);
    let network = bench.network(3);
    bench.add_key("unknown.key");
    fs::write(bench.sphinx().join("notes.txt"), "not a key").unwrap();
    let mut node = bench.start();
    node.step(&network, 250);
    // Epoch 1 is over; 4 is not announced.
    let left = Keyring::folder(bench.sphinx()).public_keys().unwrap();
    assert_eq!(left.len(), 4);
    assert!(!left.contains_key(&bench.keys[0]));
    assert!(bench.sphinx().join("notes.txt").exists());
}

#[test]
fn a_key_that_comes_in_time_is_found_without_a_restart() {
    let bench = Bench::new(2);
    let network = bench.network(2);
    let away = bench.folder.path().join("away.key");
    fs::rename(bench.sphinx().join("any name 2.key"), &away).unwrap();
    let mut node = bench.start();
    assert_eq!(open_epochs(&node.step(&network, 97)), [1]);
    assert!(!node.rotation.is_settled(), "it is looked for again");
    let trouble = node.rotation.trouble(network.epoch(EpochNumber(2)).unwrap()).unwrap().to_string();
    assert!(trouble.contains(&bench.keys[1].to_string()) && trouble.contains("epoch 2"), "{trouble}");
    fs::rename(&away, bench.sphinx().join("late.key")).unwrap();
    assert_eq!(open_epochs(&node.step(&network, 100)), [1, 2]);
    assert!(node.rotation.is_settled());
}

#[test]
fn neighbours_are_those_of_all_epochs_in_use_and_addresses_of_the_latest() {
    let bench = Bench::new(3);
    let mut epochs: Vec<_> =
        (1..=3).map(|number| epoch(number, Some(bench.keys[number as usize - 1]))).collect();
    // Gateway 4 leaves, gateway 5 comes.
    epochs[1].nodes.retain(|node| node.identity != identity(4));
    epochs[1].nodes.push(entry(5, Role::Gateway, 2, sphinx(5, 2)));
    epochs[2].nodes.retain(|node| node.identity != identity(4));
    let network = sign(epochs);
    let mut node = bench.start();
    let mut peers = |seconds| {
        let neighbours = node.step(&network, seconds).neighbours;
        let mut peers: Vec<_> = neighbours
            .iter()
            .map(|peer| (peer.identity, peer.addresses.first().map(|a| a[13..14].to_owned())))
            .collect();
        peers.sort_unstable();
        peers
            .into_iter()
            .map(|(identity_of, address)| {
                let number = (2..=5).find(|number| identity(*number) == identity_of).unwrap();
                // One layer: each is the other's successor, so the smaller key dials.
                assert_eq!(address.is_some(), identity(ME) < identity_of);
                (number, address)
            })
            .collect::<Vec<_>>()
    };
    let who = |peers: &[(u8, Option<String>)]| {
        let mut who: Vec<_> = peers.iter().map(|(number, _)| *number).collect();
        who.sort_unstable();
        who
    };
    assert_eq!(who(&peers(95)), [3, 4]);
    let both = peers(96);
    assert_eq!(who(&both), [3, 4, 5]);
    assert!(both.iter().all(|(number, address)| {
        address.as_deref().is_none_or(|epoch| epoch == if *number == 4 { "1" } else { "2" })
    }));
    assert_eq!(who(&peers(199)), [3, 4, 5]);
    assert_eq!(who(&peers(200)), [3, 5]);
}

#[test]
fn a_node_that_joins_waits_and_one_that_leaves_serves_the_overlap() {
    let bench = Bench::new(2);
    let network = sign(vec![epoch(1, None), epoch(2, Some(bench.keys[0])), epoch(3, None), epoch(4, None)]);
    let mut node = bench.start();
    let standing = node.step(&network, 10);
    assert!(open_epochs(&standing).is_empty() && standing.neighbours.is_empty());
    assert_eq!(open_epochs(&node.step(&network, 98)), [2]);
    assert_eq!(open_epochs(&node.step(&network, 297)), [2]);
    assert!(!node.step(&network, 299).neighbours.is_empty(), "packets in the pool still leave");
    assert!(matches!(node.rotation.step(&network, at(300)), Err(RotationError::NotListed { .. })));
}

#[test]
fn another_role_is_no_membership() {
    let bench = Bench::new(3);
    let mut epochs: Vec<_> =
        (1..=3).map(|number| epoch(number, Some(bench.keys[number as usize - 1]))).collect();
    let as_gateway = |epoch: &mut EpochDraft| {
        let me = epoch.nodes.iter_mut().find(|node| node.identity == identity(ME)).unwrap();
        me.role = Role::Gateway;
        me.client_addresses = vec!["/ip4/127.0.0.1/tcp/1".into()];
    };
    as_gateway(&mut epochs[1]);
    let network = sign(epochs.clone());
    let mut node = bench.start();
    assert_eq!(open_epochs(&node.step(&network, 150)), [1]);
    assert_eq!(open_epochs(&node.step(&network, 250)), [3]);
    epochs.iter_mut().for_each(as_gateway);
    let network = sign(epochs);
    let refused = node.rotation.step(&network, at(250));
    assert!(matches!(refused, Err(RotationError::Role { listed: "gateway" })), "{refused:?}");
}

#[test]
fn an_epoch_to_come_may_change_after_its_slot_is_open_and_the_filter_stays_with_the_key() {
    let bench = Bench::new(2);
    let network = bench.network(2);
    let mut node = bench.start();
    node.step(&network, 99);
    assert!(node.accepts(&network, 2, 5));
    let mut changed = draft(vec![epoch(1, Some(bench.keys[0])), epoch(2, Some(bench.keys[1]))]);
    changed.serial += 1;
    changed.epochs[1].nodes.push(entry(5, Role::Gateway, 2, sphinx(5, 2)));
    changed.epochs[1].nodes.rotate_right(1);
    let changed = changed.sign(&authority()).unwrap();
    assert_eq!(open_epochs(&node.step(&changed, 99)), [1, 2]);
    assert!(!node.accepts(&changed, 2, 5), "seen before the change");
    assert!(node.accepts(&changed, 2, 6));
}

// ---- the document's file

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn document(&self) -> PathBuf {
        self.folder.path().join("network.json")
    }

    fn write(&self, text: &str) {
        tombola_node::files::replace(&self.document(), text.as_bytes(), 0o644).unwrap();
    }

    fn open(&self) -> Result<Documents, ReloadError> {
        let lineage = Lineage::new(self.folder.path().join("lineage.toml"));
        Documents::open(self.document(), authority().key(), lineage)
    }
}

fn document(serial: u64, epochs: u64) -> String {
    let mut draft = draft((1..=epochs).map(|number| epoch(number, None)).collect());
    draft.serial = serial;
    draft.sign(&authority()).unwrap().to_json().to_owned()
}

const NOW: UnixTime = UnixTime(START + 10);

fn refusal(result: Option<Result<Arc<Network>, ReloadError>>) -> Refusal {
    match result {
        Some(Err(ReloadError::Refused { source, .. })) => source,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_document_is_put_in_force_when_its_file_changes_and_it_may_follow() {
    let files = Files::new();
    files.write(&document(5, 1));
    let mut documents = files.open().unwrap();
    documents.record().unwrap();
    assert!(documents.look(NOW).is_none());
    // The same again, with another time: nothing changes.
    files.write(&document(5, 1));
    assert!(documents.look(NOW).is_none());
    files.write(&document(6, 2));
    assert_eq!(documents.look(NOW).unwrap().unwrap().serial(), 6);
    assert_eq!(documents.current().epochs().len(), 2);
    assert!(documents.look(NOW).is_none());
    // What is refused is said once, and the one before stays.
    files.write(&document(5, 1));
    assert_eq!(refusal(documents.look(NOW)), Refusal::Older { expected: 6, found: 5 });
    assert!(documents.look(NOW).is_none());
    assert!(documents.read(NOW).is_some(), "on demand it is said again");
    files.write(&document(6, 3));
    assert!(matches!(refusal(documents.look(NOW)), Refusal::Equivocation { serial: 6, .. }));
    files.write("half a docu");
    assert!(matches!(documents.look(NOW), Some(Err(ReloadError::Unusable(_)))));
    fs::remove_file(files.document()).unwrap();
    assert!(documents.look(NOW).is_none(), "it may be about to be replaced");
    assert_eq!(documents.current().serial(), 6);
    files.write(&document(7, 3));
    assert_eq!(documents.look(NOW).unwrap().unwrap().serial(), 7);
}

#[test]
fn a_restart_takes_no_older_document_and_no_second_one() {
    let files = Files::new();
    files.write(&document(5, 2));
    files.open().unwrap().record().unwrap();
    files.write(&document(4, 2));
    let older = files.open().unwrap_err();
    assert!(matches!(older, ReloadError::Refused { source: Refusal::Older { .. }, .. }), "{older}");
    assert!(older.to_string().contains("network.json"), "{older}");
    files.write(&document(5, 3));
    let second = files.open().unwrap_err();
    assert!(second.is_equivocation(), "{second}");
    files.write(&document(5, 2));
    files.open().unwrap();
    files.write(&document(6, 3));
    // One that did not come in force is no reason to refuse the one before.
    files.open().unwrap();
    files.write(&document(5, 2));
    files.open().unwrap().record().unwrap();
    fs::write(files.folder.path().join("lineage.toml"), "serial = 5").unwrap();
    assert!(matches!(files.open(), Err(ReloadError::Record(_))));
}

// ---- folders and files

#[test]
fn a_data_folder_is_closed_to_others_and_to_a_second_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/data");
    let data = DataFolder::open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
    let second = DataFolder::open(&path).unwrap_err();
    assert!(matches!(second, DataError::InUse(_)) && second.to_string().contains("deep/data"), "{second}");
    drop(data);
    DataFolder::open(&path).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let open = DataFolder::open(&path).unwrap_err();
    assert!(matches!(open, DataError::Mode(KeyError::Mode { .. })) && open.to_string().contains("chmod 700"));
}

#[test]
fn an_erased_key_file_is_gone_and_its_bytes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys/a.key");
    let file = SecretFile::<Sphinx>::new(&path);
    file.generate().unwrap();
    // Another name of the same file shows what was written over it.
    let witness = folder.path().join("witness");
    fs::hard_link(&path, &witness).unwrap();
    let length = fs::metadata(&path).unwrap().len();
    file.erase().unwrap();
    assert!(!path.exists());
    assert_eq!(fs::read(&witness).unwrap(), vec![0; length as usize]);
    file.erase().unwrap();
}

#[test]
fn a_folder_with_a_key_that_others_can_read_is_refused_by_the_name_of_the_file() {
    let bench = Bench::new(2);
    let keyring = Keyring::folder(bench.sphinx());
    assert_eq!(keyring.public_keys().unwrap().len(), 2);
    let open = bench.sphinx().join("any name 2.key");
    fs::set_permissions(&open, PermissionsExt::from_mode(0o644)).unwrap();
    let error = keyring.public_keys().unwrap_err();
    assert!(error.to_string().contains("any name 2.key"), "{error}");
    assert!(matches!(
        Keyring::folder(bench.folder.path().join("none")).public_keys(),
        Err(KeyError::Missing(_))
    ));
}
