//! A gateway alone, with mails that are told apart by their first two bytes.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use tombola_mixing::Time;
use tombola_protocol::drops::DropCounters;
use tombola_protocol::durable::TagPlace;
use tombola_protocol::frame::{Frame, FrameKind};
use tombola_protocol::gateway::{Gateway, GatewayInput, GatewayOutput};
use tombola_protocol::mailbox::Fetch;
use tombola_protocol::opener::{Occupancy, Opened, Order};
use tombola_topology::{IdentityKey, MailboxId};

use super::by_hand::any_ticket;
use super::disk::Disk;
use super::world::{Setup, World};

/// A gateway, its disk, and one client that is there from the start.
pub(crate) struct Post {
    pub(crate) world: World,
    pub(crate) gateway: Gateway,
    pub(crate) disk: Disk,
    /// The disk neither writes nor reads until it is told to.
    pub(crate) disk_stands: bool,
    pub(crate) fetches: VecDeque<Fetch>,
    pub(crate) client: IdentityKey,
    pub(crate) occupancy: Occupancy,
    pub(crate) drops: Arc<DropCounters>,
    pub(crate) now: Time,
}

impl Post {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut world = setup.world();
        let (occupancy, drops) = (Occupancy::new(1000), Default::default());
        let gateway = world.gateway(0, &occupancy, &drops);
        let client = IdentityKey::of_seed(&[1; 32]);
        let mut post = Self {
            world,
            gateway,
            disk: Disk::default(),
            disk_stands: false,
            fetches: VecDeque::new(),
            client,
            occupancy,
            drops,
            now: Time::ZERO,
        };
        post.visit(client);
        post
    }

    pub(crate) fn handle(&mut self, input: GatewayInput) {
        self.gateway.handle(self.now, input);
        self.serve_disk();
    }

    /// Passes on what the gateway wants of its disk; answers, unless the disk stands.
    fn serve_disk(&mut self) {
        if self.disk_stands {
            core::iter::from_fn(|| self.gateway.poll_store()).for_each(|op| self.disk.submit(op));
            self.fetches.extend(core::iter::from_fn(|| self.gateway.poll_fetch()));
        } else {
            self.disk.serve(self.now, &mut self.gateway);
        }
    }

    /// The disk writes so many changes.
    pub(crate) fn commit(&mut self, count: usize) {
        let durable = self.disk.commit(count);
        self.gateway.handle(self.now, GatewayInput::Durable(durable));
    }

    /// The disk gives what was asked for.
    pub(crate) fn answer_fetches(&mut self) {
        for fetch in core::mem::take(&mut self.fetches) {
            let mails = self.disk.read(&fetch);
            self.gateway.handle(self.now, GatewayInput::Fetched { mailbox: fetch.mailbox, mails });
        }
    }

    /// The disk works again.
    pub(crate) fn disk_moves(&mut self) {
        self.disk_stands = false;
        self.answer_fetches();
        self.serve_disk();
    }

    /// The process is killed and started again; nobody is connected. Drop counters start anew.
    pub(crate) fn crash(&mut self) {
        self.disk.crash();
        self.start();
    }

    /// The process ends in order and is started again.
    pub(crate) fn restart(&mut self) {
        self.gateway.close(self.now);
        self.serve_disk();
        self.disk.commit(usize::MAX);
        self.crash();
    }

    /// A new process with what is on the disk.
    pub(crate) fn start(&mut self) {
        self.fetches.clear();
        self.drops = Arc::default();
        let stored = self.disk.stored();
        self.gateway = self.world.gateway_with(self.now, 0, stored, &self.occupancy, &self.drops);
        self.serve_disk();
    }

    /// A client comes that has nothing yet, and collects.
    pub(crate) fn visit(&mut self, client: IdentityKey) {
        self.visit_with(client, 0);
    }

    /// A client comes that has mail up to that number, and collects.
    pub(crate) fn visit_with(&mut self, client: IdentityKey, acknowledged: u64) {
        self.handle(GatewayInput::ClientConnected(client));
        self.handle(GatewayInput::ClientFrame(client, Frame::collect(true, acknowledged)));
    }

    pub(crate) fn leave(&mut self, client: IdentityKey) {
        self.handle(GatewayInput::ClientDisconnected(client));
    }

    /// The client says in a packet frame which mail it has.
    pub(crate) fn acknowledge(&mut self, client: IdentityKey, number: u64) {
        let mut frame = Frame::zeroed();
        frame.set_client_packet(
            self.world.view.parity(),
            &tombola_protocol::frame::ClientMeta {
                next: tombola_topology::NodeIndex(2),
                ack_check: [0; 8],
                challenge: [0; 20],
            },
        );
        frame.set_acknowledged(number as u16);
        self.handle(GatewayInput::ClientFrame(client, frame));
        let passed_on = self.gateway.poll_output(self.now);
        assert!(matches!(passed_on, None | Some(GatewayOutput::Forward { .. })));
    }

    pub(crate) fn mail(&mut self, to: IdentityKey, mark: u16) {
        let mut frame = Frame::zeroed();
        frame.packet_mut()[..2].copy_from_slice(&mark.to_be_bytes());
        let order = Order::Store(MailboxId::of(&to));
        assert!(self.occupancy.take());
        self.handle(GatewayInput::Opened(Opened {
            arrived: self.now,
            frame,
            order,
            tag: TagPlace::default(),
            ticket: any_ticket(),
            from: self.client,
        }));
    }

    /// Lets time pass; what comes down, in order.
    pub(crate) fn wait(&mut self, time: Duration) -> Vec<(IdentityKey, Frame)> {
        let end = self.now + time;
        let mut frames = vec![];
        loop {
            while let Some(output) = self.gateway.poll_output(self.now) {
                match output {
                    GatewayOutput::Deliver { to, frame } => frames.push((to, frame)),
                    _ => panic!("nobody sends, and nobody pays"),
                }
                self.serve_disk();
            }
            let next = self.gateway.poll_timeout().unwrap_or(Time::MAX);
            if next > end {
                break;
            }
            self.now = next;
        }
        self.now = end;
        frames
    }

    /// The marks of the mail among what comes down.
    pub(crate) fn marks(&mut self, time: Duration) -> Vec<u16> {
        marks(&self.wait(time))
    }

    /// Mail that comes down: number and mark.
    pub(crate) fn mails(&mut self, time: Duration) -> Vec<(u64, u16)> {
        let frames = self.wait(time);
        mails(&frames).map(|(_, frame)| (frame.mail_number(), mark(frame))).collect()
    }
}

fn mails(frames: &[(IdentityKey, Frame)]) -> impl Iterator<Item = &(IdentityKey, Frame)> {
    frames.iter().filter(|(_, frame)| frame.kind() == Ok(FrameKind::Mail))
}

fn mark(frame: &Frame) -> u16 {
    u16::from_be_bytes(*frame.packet().first_chunk().unwrap())
}

/// The marks of the mail among these frames.
pub(crate) fn marks(frames: &[(IdentityKey, Frame)]) -> Vec<u16> {
    mails(frames).map(|(_, frame)| mark(frame)).collect()
}
