//! Who is let in, who is not, and what strangers can do to the others.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use tombola_link::{
    CLIENT_PROTOCOL, ChannelSink, ClientLimits, DropReason as LinkDrop, LinkConfig, LinkEnd, LinkEvent,
    ListenError, NODE_PROTOCOL, Peer, Policy, Refusal, StartError, start,
};
use tombola_protocol::frame::Frame;

fn gateway_config(limits: ClientLimits, listen: &str) -> LinkConfig {
    let mut config = LinkConfig::new(secret(1), Policy::Clients(limits), CLIENT_PROTOCOL).listen_on(listen);
    config.handshake_timeout = HANDSHAKE;
    config
}

async fn client(n: u8, gateway: &Node) -> Node {
    let mut config = LinkConfig::new(secret(n), Policy::DialOnly, CLIENT_PROTOCOL);
    config.handshake_timeout = HANDSHAKE;
    Node::start(config, vec![gateway.as_peer()]).await
}

async fn stranger(listen: &str) {
    let (a, b) = pair(listen).await;
    let stranger = Node::dialling(3, &a).await;
    a.until("refusals", |stats| stats.refused.get(&Refusal::Stranger) >= Some(&2)).await;
    // It is not connected, it is not known, and the neighbour is served as before.
    assert_eq!(a.stats().links, 1);
    assert!(a.links.send(&key(3), Frame::zeroed()).is_err());
    b.send(key(1), 0..10).await;
    assert!(a.frames(key(2), 10).await.into_iter().eq(0..10));
    assert_eq!(stranger.stats().links, 0);
    assert!(stranger.events.is_empty());
    assert!(a.events.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_over_quic() {
    stranger(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_over_tcp() {
    stranger(TCP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_we_are_to_dial_may_not_dial_us() {
    // Both dial: a mistake in configuration. Neither gets through, and both say why.
    let free = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("/ip4/127.0.0.1/tcp/{}", socket.local_addr().unwrap().port())
    };
    let (address_a, address_b) = (free(), free());
    let node = |n, own: &str, other: u8, address: &str| {
        let peers = vec![Peer::dialled(key(other), vec![address.to_owned()])];
        Node::start(node_config(n, Policy::Neighbours).listen_on(own), peers)
    };
    let a = node(1, &address_a, 2, &address_b).await;
    let b = node(2, &address_b, 1, &address_a).await;
    for node in [&a, &b] {
        node.until("a refusal", |stats| stats.refused.contains_key(&Refusal::WrongDirection)).await;
        assert_eq!(node.stats().links, 0);
    }
}

async fn other_protocol(listen: &str) {
    let a = Node::listening(1, listen, &[2]).await;
    let mut config = node_config(2, Policy::Neighbours);
    // The version before.
    config.protocol = "/tombola/link/1".to_owned();
    let b = Node::start(config, vec![a.as_peer()]).await;
    for node in [&a, &b] {
        node.until("a refusal", |stats| stats.refused.contains_key(&Refusal::Protocol)).await;
        assert_eq!(node.stats().links, 0);
        assert!(node.events.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_is_refused_over_quic() {
    other_protocol(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_is_refused_over_tcp() {
    other_protocol(TCP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_second_connection_replaces_its_first() {
    for listen in BOTH {
        let gateway = Node::start(gateway_config(ClientLimits::default(), listen), vec![]).await;
        let first = client(2, &gateway).await;
        gateway.connected_to(key(2)).await;
        first.connected_to(key(1)).await;

        let second = client(2, &gateway).await;
        gateway.disconnected_from(key(2)).await;
        gateway.connected_to(key(2)).await;
        second.connected_to(key(1)).await;
        first.disconnected_from(key(1)).await;
        // The first would come back and replace the second in turn.
        first.links.shutdown().await;
        let stats = gateway.stats();
        assert_eq!(stats.ended[&LinkEnd::Replaced], 1);
        gateway.until("one link to be left", |stats| stats.links == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_replaced_is_told_so_and_the_one_that_replaces_it_is_not() {
    for listen in BOTH {
        let mut config = gateway_config(ClientLimits::default(), listen);
        config.parting = Some(numbered(Frame::zeroed(), 7));
        let gateway = Node::start(config, vec![]).await;
        let first = client(2, &gateway).await;
        gateway.connected_to(key(2)).await;
        first.connected_to(key(1)).await;
        // It sends all the time, which nobody takes any more.
        first.send(key(1), 0..5).await;
        gateway.frames(key(2), 5).await;

        let second = client(2, &gateway).await;
        second.connected_to(key(1)).await;
        let _ = first.links.send(&key(1), Frame::zeroed());
        assert_eq!(first.frames(key(1), 1).await, [7], "over {listen}");
        first.links.shutdown().await;
        gateway.disconnected_from(key(2)).await;
        gateway.connected_to(key(2)).await;
        gateway.send(key(2), 0..3).await;
        assert_eq!(second.frames(key(1), 3).await, [0, 1, 2], "nothing else was sent to it");

        // A client that is gone, and of which nobody has heard that, is replaced without a word to its successor.
        drop(second);
        let third = client(2, &gateway).await;
        third.connected_to(key(1)).await;
        gateway.until("the third one's link", |stats| stats.links == 1).await;
        while gateway.event().await != LinkEvent::Connected(key(2)) {}
        gateway.send(key(2), 3..6).await;
        assert_eq!(third.frames(key(1), 3).await, [3, 4, 5]);
        gateway.links.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_queued_for_a_link_that_is_over_is_not_for_the_next_one() {
    for listen in BOTH {
        let gateway = Node::start(gateway_config(ClientLimits::default(), listen), vec![]).await;
        let mut config = LinkConfig::new(secret(2), Policy::DialOnly, CLIENT_PROTOCOL);
        config.outbound_queue = 8;
        let client = Node::start(config, vec![gateway.as_peer()]).await;
        client.connected_to(key(1)).await;
        let address = gateway.links.listen_addresses().remove(0);
        gateway.links.shutdown().await;
        client.disconnected_from(key(1)).await;
        while client.links.send(&key(1), Frame::zeroed()).is_ok() {}
        assert_eq!(client.stats().queued, 8, "no room for anything else");
        let deadline = std::time::Instant::now() + PATIENCE;
        let gateway = loop {
            // Within one process the old socket lives until the transport has forgotten its last connection.
            let (sink, events) = ChannelSink::new(64);
            let config = gateway_config(ClientLimits::default(), &address);
            match start(config, vec![], Arc::new(sink)).await {
                Ok(links) => break Node { links, events },
                Err(_) => pause(deadline, "the address").await,
            }
        };
        gateway.connected_to(key(2)).await;
        client.connected_to(key(1)).await;
        client.send(key(1), 1..4).await;
        assert_eq!(gateway.frames(key(2), 3).await, [1, 2, 3], "over {listen}");
        assert_eq!(client.stats().dropped[&LinkDrop::Stale], 8);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_beyond_the_limit_are_refused_until_one_leaves() {
    for listen in BOTH {
        let limits = ClientLimits { max_connections: 2, ..ClientLimits::default() };
        let gateway = Node::start(gateway_config(limits, listen), vec![]).await;
        let first = client(2, &gateway).await;
        let second = client(3, &gateway).await;
        gateway.until("two links", |stats| stats.links == 2).await;
        let third = client(4, &gateway).await;
        gateway.until("a refusal", |stats| stats.refused.contains_key(&Refusal::ClientLimit)).await;
        assert_eq!(gateway.stats().links, 2);

        // Both ways, meanwhile.
        first.connected_to(key(1)).await;
        first.send(key(1), 0..5).await;
        gateway.send(key(2), 0..5).await;
        assert!(first.frames(key(1), 5).await.into_iter().eq(0..5));

        second.links.shutdown().await;
        third.connected_to(key(1)).await;
        gateway.until("two links", |stats| stats.links == 2).await;
        // A client that has left is unknown: nothing is kept for it.
        assert!(gateway.links.send(&key(3), Frame::zeroed()).is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_origin_has_its_limit() {
    let limits = ClientLimits { max_per_origin: Some(1), ..ClientLimits::default() };
    let gateway = Node::start(gateway_config(limits, QUIC), vec![]).await;
    let first = client(2, &gateway).await;
    first.connected_to(key(1)).await;
    let _second = client(3, &gateway).await;
    gateway.until("a refusal", |stats| stats.refused.contains_key(&Refusal::OriginLimit)).await;
    assert_eq!(gateway.stats().links, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_silent_is_disconnected() {
    let limits = ClientLimits { idle_timeout: Duration::from_millis(300), ..ClientLimits::default() };
    let gateway = Node::start(gateway_config(limits, QUIC), vec![]).await;
    let client = client(2, &gateway).await;
    gateway.connected_to(key(2)).await;
    client.connected_to(key(1)).await;
    gateway.disconnected_from(key(2)).await;
    assert_eq!(gateway.stats().ended[&LinkEnd::Idle], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_do_not_come_to_an_end_hold_up_nobody_for_long() {
    let mut config = node_config(1, Policy::Neighbours).listen_on(TCP);
    config.max_handshakes = 4;
    let a = Node::start(config, vec![Peer::awaited(key(2))]).await;
    let address = a.links.listen_addresses().remove(0);
    let port: u16 = address.rsplit('/').next().unwrap().parse().unwrap();
    let flood: Vec<_> = (0..32).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    a.until("the limit", |stats| stats.refused.get(&Refusal::HandshakeLimit) >= Some(&28)).await;

    let b = Node::dialling(2, &a).await;
    b.connected_to(key(1)).await;
    a.until("the flood to time out", |stats| stats.refused.get(&Refusal::HandshakeFailed) >= Some(&4)).await;
    drop(flood);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_way_without_encryption() {
    use std::io::{Read, Write};

    let a = Node::listening(1, TCP, &[2]).await;
    let port: u16 = a.links.listen_addresses()[0].rsplit('/').next().unwrap().parse().unwrap();
    let reply = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The negotiation of libp2p, asking for what it offers besides Noise: no encryption.
        stream.write_all(b"\x13/multistream/1.0.0\n\x11/plaintext/2.0.0\n").unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        reply
    });
    let reply = String::from_utf8_lossy(&reply.await.unwrap()).into_owned();
    assert!(reply.ends_with("\x03na\n"), "{reply:?}");
    a.until("a refusal", |stats| stats.refused.contains_key(&Refusal::HandshakeFailed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_an_error_that_names_it() {
    for listen in BOTH {
        let a = Node::listening(1, listen, &[]).await;
        let address = a.links.listen_addresses().remove(0);
        let config = node_config(2, Policy::Neighbours).listen_on(&address);
        let error = start(config, vec![], Arc::new(ChannelSink::new(1).0)).await.unwrap_err();
        assert!(matches!(error, StartError::Listen(ListenError::InUse { .. })), "{error}");
        assert!(error.to_string().contains(&address), "{error}");
        assert!(error.to_string().contains("another port"), "{error}");
    }
}

#[tokio::test]
async fn each_wrong_configuration_is_refused_for_its_own_reason() {
    let attempt =
        |config: LinkConfig, peers: Vec<Peer>| start(config, peers, Arc::new(ChannelSink::new(1).0));
    let config = || LinkConfig::new(secret(1), Policy::Neighbours, NODE_PROTOCOL);

    let error = attempt(config().listen_on("localhost:1"), vec![]).await.unwrap_err();
    assert!(error.to_string().contains("\"localhost:1\""), "{error}");
    let error =
        attempt(config(), vec![Peer::dialled(key(2), vec!["/dns/x/tcp/1".into()])]).await.unwrap_err();
    assert!(matches!(error, StartError::Peers(_)) && error.to_string().contains("/dns/x/tcp/1"), "{error}");
    let error = attempt(LinkConfig { protocol: "tombola".into(), ..config() }, vec![]).await.unwrap_err();
    assert!(matches!(error, StartError::Protocol { .. }), "{error}");
    let error = attempt(LinkConfig { outbound_queue: 0, ..config() }, vec![]).await.unwrap_err();
    assert!(matches!(error, StartError::NoQueue), "{error}");
    let dial_only = LinkConfig::new(secret(1), Policy::DialOnly, NODE_PROTOCOL).listen_on(QUIC);
    let error = attempt(dial_only, vec![]).await.unwrap_err();
    assert!(matches!(error, StartError::DialOnly { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_interfaces_can_be_listened_on() {
    let config = node_config(1, Policy::Neighbours).listen_on("/ip4/0.0.0.0/udp/0/quic-v1");
    let a = Node::start(config, vec![Peer::awaited(key(2))]).await;
    let local =
        |addresses: Vec<String>| addresses.into_iter().find(|address| address.starts_with("/ip4/127.0.0.1/"));
    let deadline = std::time::Instant::now() + PATIENCE;
    let address = loop {
        match local(a.links.listen_addresses()) {
            Some(address) => break address,
            None => pause(deadline, "the loopback interface").await,
        }
    };
    let b = Node::start(node_config(2, Policy::Neighbours), vec![Peer::dialled(key(1), vec![address])]).await;
    b.connected_to(key(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_peers_can_be_replaced() {
    let (a, b) = pair(QUIC).await;
    let c = Node::dialling(3, &a).await;
    b.send(key(1), 0..3).await;
    assert!(a.frames(key(2), 3).await.into_iter().eq(0..3));

    a.links.set_peers(&[Peer::awaited(key(3))]).unwrap();
    // At once, for whoever asks afterwards.
    assert_eq!(a.event().await, LinkEvent::Disconnected(key(2)));
    assert!(a.links.send(&key(2), Frame::zeroed()).is_err());
    a.links.send(&key(3), numbered(Frame::zeroed(), 7)).unwrap();
    a.connected_to(key(3)).await;
    c.connected_to(key(1)).await;
    assert_eq!(c.frames(key(1), 1).await, [7]);
    a.until("the removed peer to be refused", |stats| stats.refused.contains_key(&Refusal::Stranger)).await;
    assert_eq!(a.stats().ended[&LinkEnd::Removed], 1);
    assert_eq!(a.stats().links, 1);

    // And back again.
    a.links.set_peers(&[Peer::awaited(key(3)), Peer::awaited(key(2))]).unwrap();
    a.connected_to(key(2)).await;
    assert_eq!(a.stats().links, 2);
}
