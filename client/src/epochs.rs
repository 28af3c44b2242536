//! Takes the client from epoch to epoch, and from one network document to the next, while it runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tombola_link::{Links, Peer};
use tombola_node::clock::unix_time_now;
use tombola_node::driver::Inputs;
use tombola_node::payment_client::ClientWatch;
use tombola_node::reload::{Documents, LOOK_INTERVAL, ReloadError};
use tombola_node::shutdown::{Cause, Shutdown};
use tombola_protocol::view::{EpochView, SendViews, ViewError};
use tombola_topology::{Epoch, IdentityKey, Network, Phases, UnixTime};

use crate::machine::Input;

/// The epochs that packets use, each checked once.
#[derive(Debug, Default)]
pub(crate) struct Views {
    checked: BTreeMap<u64, Arc<EpochView>>,
}

impl Views {
    /// Those of an instant, the time since 1970.
    ///
    /// # Errors
    /// The document is not valid then, or an epoch cannot be used.
    pub(crate) fn at(&mut self, network: &Network, now: Duration) -> Result<SendViews, ViewError> {
        let phases = Phases::at(network, now)?;
        let old = phases.old.map(|epoch| self.view(network, &epoch)).transpose()?;
        let current = self.view(network, &phases.current)?;
        self.checked.retain(|number, _| number + 1 >= current.number());
        Ok(SendViews { current, old })
    }

    fn view(&mut self, network: &Network, epoch: &Arc<Epoch>) -> Result<Arc<EpochView>, ViewError> {
        if let Some(view) = self.checked.get(&epoch.number().0).filter(|view| view.epoch() == epoch) {
            return Ok(Arc::clone(view));
        }
        let view = EpochView::of(network, epoch)?;
        self.checked.insert(view.number(), Arc::clone(&view));
        Ok(view)
    }
}

/// What has to follow when epochs or documents change.
pub(crate) struct Follower {
    pub(crate) documents: Documents,
    pub(crate) views: Views,
    pub(crate) sender: watch::Sender<SendViews>,
    pub(crate) gateway: IdentityKey,
    pub(crate) addresses: Vec<String>,
    pub(crate) links: Links,
    pub(crate) inputs: Inputs<Input>,
    /// Tells what the chain says; `None` in a network without payment.
    pub(crate) watching: Option<ClientWatch>,
    pub(crate) stop: Shutdown,
}

impl Follower {
    /// Looks at the clock and at the document's file until the client ends. Ends it when there is no epoch for it any more, or
    /// when its authority is found to have signed two documents with one number.
    pub(crate) async fn run(mut self) {
        loop {
            // Epochs change at their instants: who sent late would be refused.
            let now = unix_time_now();
            let change = self.documents.current().next_change(now).unwrap_or(Duration::MAX);
            tokio::select! {
                _ = self.stop.triggered() => return,
                () = tokio::time::sleep(change.saturating_sub(now).min(LOOK_INTERVAL)) => {}
            }
            // Reading and checking a large document takes a while.
            let stepped = tokio::task::spawn_blocking(move || {
                let result = self.step();
                (self, result)
            });
            let Ok((back, result)) = stepped.await else { return };
            self = back;
            if let Err(reason) = result {
                self.stop.trigger(Cause::Failure(reason));
                return;
            }
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let now = unix_time_now();
        match self.documents.look(UnixTime(now.as_secs())) {
            Some(Err(error)) => self.refused(&error)?,
            Some(Ok(network)) => {
                tracing::info!(serial = network.serial(), "a new network document is in force");
                self.watching.iter().for_each(|watching| watching.network(&network));
            }
            None => {}
        }
        let network = Arc::clone(self.documents.current());
        let views = self.views.at(&network, now).map_err(|error| {
            format!("{}: {error}; get the current document with `update`", self.documents.path().display())
        })?;
        let before = self.sender.borrow().clone();
        let same = Arc::ptr_eq(&before.current, &views.current)
            && before.old.as_ref().map(|view| view.number()) == views.old.as_ref().map(|view| view.number());
        if !same {
            self.sender.send_replace(views.clone());
            self.move_gateway(&views.current);
            let _ = self.inputs.send(Input::Views(Box::new(views)));
        }
        Ok(())
    }

    fn refused(&self, error: &ReloadError) -> Result<(), String> {
        if error.is_equivocation() {
            return Err(format!(
                "{error}: two different documents with one number are signed, so somebody is shown another network; this client stops until it is known which one is right"
            ));
        }
        let _ = self.inputs.send(Input::DocumentRefused(error.to_string()));
        Ok(())
    }

    /// The gateway may have other addresses in the new epoch.
    fn move_gateway(&mut self, view: &EpochView) {
        let node = view.epoch().index_of(&self.gateway).and_then(|index| view.epoch().node(index));
        let Some(node) = node.filter(|node| node.client_addresses != self.addresses) else { return };
        self.addresses.clone_from(&node.client_addresses);
        if let Err(error) =
            self.links.set_peers(&[Peer::dialled(self.gateway, node.client_addresses.clone())])
        {
            tracing::warn!(%error, "the gateway's new addresses are not used");
        }
    }
}
