//! Who knocks without being invited, and who misbehaves once inside.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use futures::{AsyncWriteExt, StreamExt};
use libp2p::identity::Keypair;
use libp2p::swarm::{StreamProtocol, SwarmEvent};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, noise, tcp, yamux};
use tombola_client::{Client, Content, Home};
use tombola_link::{
    CLIENT_PROTOCOL, ChannelSink, LinkConfig, LinkEvent, LinkSecret, Links, NODE_PROTOCOL, Peer, Policy,
};
use tombola_protocol::frame::{ClientMeta, Frame, Parity};
use tombola_tests::hand::{HandNetwork, HandNode, Spec, port_of};
use tombola_tests::{PATIENCE, eventually};
use tombola_topology::NodeIndex;

use crate::observed::{assert_discreet, names_of, names_of_seed};

/// Dials one node with an identity of one's own.
async fn dial(
    secret: LinkSecret,
    protocol: &str,
    node: &HandNode,
    addresses: &[String],
) -> (Links, Receiver<LinkEvent>) {
    let (sink, events) = ChannelSink::new(4096);
    let config = LinkConfig::new(secret, Policy::DialOnly, protocol);
    let peer = Peer::dialled(node.identity, addresses.to_vec());
    (tombola_link::start(config, vec![peer], Arc::new(sink)).await.unwrap(), events)
}

fn refused(node: &HandNode, reason: &str) -> f64 {
    node.metrics().with("tombola_connections_refused_total", "reason", reason)
}

fn dropped(node: &HandNode, reason: &str) -> f64 {
    node.metrics().with("tombola_packets_dropped_total", "reason", reason)
}

/// Waits until a counter has grown by at least `by`.
fn grown(what: &str, read: impl Fn() -> f64, before: f64, by: f64) {
    eventually(what, || (read() >= before + by).then_some(()));
}

/// Two clients at gateway 1 between whom a message goes.
struct Talk {
    alice: Client,
    bob: Client,
    number: u32,
}

impl Talk {
    async fn begin(homes: &[Home; 2]) -> Self {
        let [alice, bob] =
            [Client::connect(&homes[0]).await.unwrap(), Client::connect(&homes[1]).await.unwrap()];
        Self { alice, bob, number: 0 }
    }

    async fn goes_on(&mut self) {
        self.number += 1;
        let content = Content::Text(format!("still there {}", self.number));
        self.alice.send(&self.bob.address(), &content).await.unwrap();
        let received = tokio::time::timeout(PATIENCE, self.bob.receive()).await.unwrap().unwrap();
        assert_eq!(received.content, content);
    }
}

#[test]
fn whoever_should_not_be_there_is_refused_and_nobody_else_notices() {
    tombola_client::install_crypto_provider();
    let mut network = HandNetwork::new(&Spec::new(3, 1, 1), |_, _| {});
    network.start();
    let homes = ["alice", "bob"].map(|name| Home::open(network.client(name, "gateway 1")).unwrap());
    let client_secret = tombola_tests::hand::link_secret(homes[0].path());
    let (mix, gateway) = (network.node("mix 1.1"), network.node("gateway 1"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut talk = Talk::begin(&homes).await;
        talk.goes_on().await;
        let strangers: [(&str, LinkSecret, &str, &HandNode, &str); 7] = [
            ("a stranger at a mix node", LinkSecret::from_seed([1; 32]), NODE_PROTOCOL, mix, "stranger"),
            (
                "a stranger at a gateway's port for nodes",
                LinkSecret::from_seed([2; 32]),
                NODE_PROTOCOL,
                gateway,
                "stranger",
            ),
            ("a client at a mix node", client_secret.clone(), CLIENT_PROTOCOL, mix, "stranger"),
            ("a client at a gateway's port for nodes", client_secret, CLIENT_PROTOCOL, gateway, "stranger"),
            // Its neighbours are the gateway and layer 2; layer 3 has no business there.
            (
                "a node of a wrong layer",
                network.node("mix 3.1").link_secret(),
                NODE_PROTOCOL,
                mix,
                "stranger",
            ),
            // Layer 1 dials layer 2, so that there is one link between the two.
            (
                "a neighbour the wrong way round",
                network.node("mix 2.1").link_secret(),
                NODE_PROTOCOL,
                mix,
                "wrong_direction",
            ),
            ("layer 1 at layer 3", mix.link_secret(), NODE_PROTOCOL, network.node("mix 3.1"), "stranger"),
        ];
        for (who, secret, protocol, node, reason) in strangers {
            // Over either transport.
            for address in &node.listen {
                let before = refused(node, reason);
                let (links, events) =
                    dial(secret.clone(), protocol, node, std::slice::from_ref(address)).await;
                grown(&format!("{who} is refused at {address}"), || refused(node, reason), before, 1.0);
                assert!(events.is_empty(), "{who}: {:?}", events.try_recv());
                links.shutdown().await;
            }
        }
        // Somebody who has no business at a port for clients either: another protocol.
        let before =
            refused(gateway, "open_timeout") + refused(gateway, "protocol") + refused(gateway, "not_opened");
        let (links, events) =
            dial(LinkSecret::from_seed([3; 32]), NODE_PROTOCOL, gateway, &gateway.client_listen).await;
        let all = || {
            refused(gateway, "open_timeout") + refused(gateway, "protocol") + refused(gateway, "not_opened")
        };
        grown("another protocol is refused", all, before, 1.0);
        assert!(events.is_empty());
        links.shutdown().await;

        // What is no handshake at all.
        let noise: Vec<u8> = (0..4096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for node in [mix, gateway] {
            for address in node.listen.iter().chain(&node.client_listen) {
                let port = port_of(address);
                if address.contains("/tcp/") {
                    let before = refused(node, "handshake_failed");
                    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                    let _ = stream.write_all(&noise);
                    grown("garbage is refused", || refused(node, "handshake_failed"), before, 1.0);
                } else {
                    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                    for length in [0, 1, 20, 1200, 1400] {
                        socket.send_to(&noise[..length], (Ipv4Addr::LOCALHOST, port)).unwrap();
                        // The first byte of a long header of QUIC.
                        let mut long = noise[..length].to_vec();
                        long.splice(..length.min(5), [0xc0, 0, 0, 0, 1].into_iter().take(length));
                        socket.send_to(&long, (Ipv4Addr::LOCALHOST, port)).unwrap();
                    }
                }
            }
        }
        talk.goes_on().await;
        talk.alice.close().await.unwrap();
        talk.bob.close().await.unwrap();
    });
    let names: Vec<[String; 2]> = network.nodes.iter().map(|node| names_of(&node.home)).collect();
    let uninvited = (1..8).flat_map(|n| names_of_seed([n; 32]));
    let clients: Vec<String> = homes.iter().flat_map(|home| names_of(home.path())).chain(uninvited).collect();
    assert_discreet(&network.stop(), &names, &clients);
}

/// A frame with a packet of noise, as a client sends it to its gateway.
fn client_packet(next: NodeIndex, filler: u8) -> Frame {
    let mut frame = Frame::zeroed();
    frame.packet_mut().fill(filler);
    let meta = ClientMeta { next, ack_check: [1; 8], challenge: [2; 20] };
    frame.set_client_packet(Parity::of(1), &meta);
    frame
}

fn of_kind(kind: u8) -> Frame {
    let mut frame = Frame::zeroed();
    frame.as_bytes_mut()[0] = kind;
    frame
}

/// The test plays gateway 2, a neighbour in good standing, and a client.
#[test]
fn whoever_is_inside_and_sends_nonsense_is_counted_and_nobody_else_notices() {
    tombola_client::install_crypto_provider();
    let mut network = HandNetwork::new(&Spec::new(3, 1, 2), |_, _| {});
    network.start_without(&["gateway 2"]);
    let homes = ["alice", "bob"].map(|name| Home::open(network.client(name, "gateway 1")).unwrap());
    let index =
        |name: &str| NodeIndex(network.nodes.iter().position(|node| node.name == name).unwrap() as u32);
    let (mix, gateway) = (network.node("mix 1.1"), network.node("gateway 1"));
    let rogue = network.node("gateway 2").link_secret();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut talk = Talk::begin(&homes).await;
        talk.goes_on().await;

        // A client at its gateway.
        let (links, _events) =
            dial(LinkSecret::from_seed([4; 32]), CLIENT_PROTOCOL, gateway, &gateway.client_listen).await;
        up(&links).await;
        let mut reserved = Frame::collect(true, 0);
        reserved.as_bytes_mut()[2] = 1;
        let mut parity = Frame::collect(true, 0);
        parity.as_bytes_mut()[1] = 2;
        for (what, frame, node, reason) in [
            ("an unknown kind", of_kind(0xee), gateway, "bad_frame"),
            ("kind zero", of_kind(0), gateway, "bad_frame"),
            ("a reserved byte", reserved, gateway, "bad_frame"),
            ("an impossible parity", parity, gateway, "bad_frame"),
            ("mail to a gateway", of_kind(3), gateway, "wrong_direction"),
            ("padding to a gateway", of_kind(4), gateway, "wrong_direction"),
            ("a packet for layer 2", client_packet(index("mix 2.1"), 9), gateway, "bad_next_hop"),
            ("a packet for a gateway", client_packet(index("gateway 2"), 9), gateway, "bad_next_hop"),
            ("a packet for nobody", client_packet(NodeIndex(u32::MAX), 9), gateway, "bad_next_hop"),
            // A gateway cannot tell; layer 1 can.
            ("a packet of noise", client_packet(index("mix 1.1"), 9), mix, "bad_mac"),
            ("a packet whose point is zero", client_packet(index("mix 1.1"), 0), mix, "bad_point"),
            (
                "a packet whose point is not canonical",
                client_packet(index("mix 1.1"), 0xff),
                mix,
                "bad_point",
            ),
        ] {
            let before = dropped(node, reason);
            links.send(&gateway.identity, frame).unwrap();
            grown(what, || dropped(node, reason), before, 1.0);
        }
        links.shutdown().await;

        // A gateway at layer 1.
        let (links, _events) = dial(rogue, NODE_PROTOCOL, mix, &mix.listen).await;
        up(&links).await;
        let mut old_key = client_packet(index("mix 2.1"), 9);
        old_key.as_bytes_mut()[1] = 0;
        for (what, frame, reason) in [
            ("an unknown kind", of_kind(0xee), "bad_frame"),
            ("mail to a mix node", of_kind(3), "wrong_direction"),
            ("a wish for mail", Frame::collect(true, 0), "wrong_direction"),
            ("a packet under a key that there is not", old_key, "no_key"),
            ("a packet of noise", client_packet(index("mix 2.1"), 9), "bad_mac"),
        ] {
            let before = dropped(mix, reason);
            links.send(&mix.identity, frame).unwrap();
            grown(what, || dropped(mix, reason), before, 1.0);
        }
        links.shutdown().await;
        talk.goes_on().await;

        cut_a_frame(gateway).await;

        // A client that floods: its gateway stops listening to it, and to nobody else.
        let (links, _events) =
            dial(LinkSecret::from_seed([6; 32]), CLIENT_PROTOCOL, gateway, &gateway.client_listen).await;
        up(&links).await;
        let before = dropped(gateway, "rate_limited");
        for _ in 0..3000 {
            while links.send(&gateway.identity, of_kind(0xee)).is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        grown("a flood is cut", || dropped(gateway, "rate_limited"), before, 1000.0);
        talk.goes_on().await;
        links.shutdown().await;
        talk.alice.close().await.unwrap();
        talk.bob.close().await.unwrap();
    });
    let names: Vec<[String; 2]> = network.nodes.iter().map(|node| names_of(&node.home)).collect();
    let uninvited = (1..8).flat_map(|n| names_of_seed([n; 32]));
    let clients: Vec<String> = homes.iter().flat_map(|home| names_of(home.path())).chain(uninvited).collect();
    assert_discreet(&network.stop(), &names, &clients);
}

/// Waits until a link is up: what is sent before is stale then.
async fn up(links: &Links) {
    let linked = async {
        while links.stats().links == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, linked).await.expect("the link comes up");
}

/// Opens a stream as a client does, sends 1000 bytes of a frame, ends the stream, and stays until that is counted.
async fn cut_a_frame(gateway: &HandNode) {
    let mut swarm = SwarmBuilder::with_existing_identity(Keypair::ed25519_from_bytes([5; 32]).unwrap())
        .with_tokio()
        .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build();
    let protocol = || StreamProtocol::new(CLIENT_PROTOCOL);
    let mut control = swarm.behaviour().new_control();
    let mut incoming = control.accept(protocol()).unwrap();
    let address: Multiaddr =
        gateway.client_listen.iter().find(|address| address.contains("/tcp/")).unwrap().parse().unwrap();
    swarm.dial(address).unwrap();
    let peer: PeerId = loop {
        if let SwarmEvent::ConnectionEstablished { peer_id, .. } = swarm.select_next_some().await {
            break peer_id;
        }
    };
    let task = tokio::spawn(async move { while swarm.next().await.is_some() {} });
    let mut stream = control.open_stream(peer, protocol()).await.unwrap();
    let accepted = tokio::time::timeout(PATIENCE, incoming.next()).await.unwrap();
    stream.write_all(&[1; 1000]).await.unwrap();
    stream.close().await.unwrap();
    eventually("the cut frame is counted", || {
        (gateway.metrics().with("tombola_frame_lengths_total", "bytes", "1000") == 1.0).then_some(())
    });
    drop(accepted);
    task.abort();
}
