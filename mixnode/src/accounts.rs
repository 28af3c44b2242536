//! The node's own client accounts, at gateways that are redrawn each epoch.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tombola_link::{CLIENT_PROTOCOL, LinkConfig, LinkSecret, Links, Peer, Policy};
use tombola_mixing::Rng;
use tombola_node::clock::Clock;
use tombola_node::derive::{self, derive_seed};
use tombola_node::driver::Inputs;
use tombola_node::egress::Outlet;
use tombola_node::funding::{Need, rate_of};
use tombola_node::ingress::{InputSink, LinkChange};
use tombola_node::keys::{Link, Secret};
use tombola_node::meters::LinkRegistry;
use tombola_node::payment::Bank;
use tombola_node::payment_client::{ClientChain, ClientPayer, ClientWatch, signer_of};
use tombola_node::purse::Purse;
use tombola_node::rotation::Standing;
use tombola_node::shutdown::Shutdown;
use tombola_protocol::client::{Client, ClientKeys};
use tombola_protocol::frame::Frame;
use tombola_protocol::payment::{EpochPrices, Payments};
use tombola_protocol::relay::{NewViews, Relay, RelayInput};
use tombola_protocol::view::{EpochView, Seat};
use tombola_sphinx::SecretKey;
use tombola_tickets::Address;
use tombola_topology::{IdentityKey, Role};
use zeroize::Zeroizing;

/// Gateways at which a mix node keeps an account.
const ACCOUNTS: usize = 2;

/// Frames that may wait for an account's gateway.
const ACCOUNT_QUEUE: usize = 256;

/// How soon accounts that did not start are tried again.
const RETRY: Duration = Duration::from_secs(5);

/// One account: its gateway, where that serves clients, its keys.
struct Account {
    gateway: IdentityKey,
    addresses: Vec<String>,
    link: LinkSecret,
    keys: ClientKeys,
    /// The key of its account on the chain.
    purse: Zeroizing<[u8; 32]>,
}

/// The accounts of this epoch. Everything follows from the node's secret and the epoch's number, so a node that
/// restarts finds its accounts again, and nobody else can tell which they are.
fn draw(view: &EpochView, secret: &[u8; 32]) -> Vec<Account> {
    let epoch = view.epoch().number().0.to_be_bytes();
    let mut gateways = view.epoch().gateways().to_vec();
    Rng::from_seed(*derive_seed(secret, b"tombola/accounts/gateways", &[&epoch])).shuffle(&mut gateways);
    gateways
        .into_iter()
        .take(ACCOUNTS)
        .filter_map(|index| {
            let node = view.epoch().node(index)?;
            let gateway = node.identity;
            let context: [&[u8]; 2] = [&epoch, gateway.as_bytes()];
            let link = LinkSecret::from_seed(*derive_seed(secret, b"tombola/accounts/link", &context));
            let sphinx = SecretKey::from_bytes(*derive_seed(secret, b"tombola/accounts/sphinx", &context));
            let keys = ClientKeys { sphinx, identity: link.identity(), gateway };
            let purse = derive_seed(secret, b"tombola/accounts/chain", &context);
            Some(Account { gateway, addresses: node.client_addresses.clone(), link, keys, purse })
        })
        .collect()
}

/// The accounts from which a mix node pays for its loops in an epoch, each with the gateway that is paid. The node fills their
/// reserves for these gateways from what it has. `secret` is that of its link identity.
#[must_use]
pub fn paying_accounts(view: &EpochView, secret: &[u8; 32]) -> Vec<(IdentityKey, Address)> {
    let drawn = draw(view, secret).into_iter();
    drawn.filter_map(|account| Some((account.gateway, signer_of(&account.purse).ok()?.address()))).collect()
}

/// The way to the accounts' gateways, by the numbers of the accounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccountLinks(Arc<Mutex<BTreeMap<usize, AccountLink>>>);

#[derive(Debug)]
struct AccountLink {
    gateway: IdentityKey,
    links: Links,
    outlet: Arc<Mutex<Outlet>>,
}

impl AccountLinks {
    /// An account that cannot send loses cover only.
    pub(crate) fn send(&self, account: usize, frame: Frame) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(AccountLink { gateway, links, outlet }) = all.get(&account) {
            let _ = lock(outlet).send(links, gateway, frame);
        }
    }

    /// Puts new ones in place of all; returns those that were.
    fn replace(&self, new: BTreeMap<usize, AccountLink>) -> Vec<Links> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *all, new).into_values().map(|link| link.links).collect()
    }
}

fn lock(outlet: &Mutex<Outlet>) -> MutexGuard<'_, Outlet> {
    outlet.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the accounts that pay have on disk, by the numbers of the accounts.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccountPurses(Arc<Mutex<BTreeMap<usize, AccountPurse>>>);

/// One of them, and its tickets that may still be claimed.
#[derive(Debug)]
struct AccountPurse {
    purse: Purse,
    outstanding: Arc<AtomicU64>,
}

impl AccountPurse {
    fn serve(&mut self, payments: &mut Payments) {
        self.purse.serve(payments);
        let outstanding = payments.ledger().accounts().map(|(_, account)| account.outstanding).sum();
        self.outstanding.store(outstanding, Ordering::Relaxed);
    }
}

impl AccountPurses {
    fn all(&self) -> MutexGuard<'_, BTreeMap<usize, AccountPurse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on what the accounts want written, and what is durable.
    pub(crate) fn serve(&self, relay: &mut Relay) {
        let mut purses = self.all();
        if purses.is_empty() {
            return;
        }
        let first = relay.loops().first_account();
        for (number, payments) in (first..).zip(relay.account_payments()) {
            if let (Some(purse), Some(payments)) = (purses.get_mut(&number), payments) {
                purse.serve(payments);
            }
        }
    }

    /// An account was told what the chain says, and [`Self::serve`] was called since.
    pub(crate) fn note_fact(&self, account: usize) {
        if let Some(account) = self.all().get_mut(&account) {
            account.purse.note_fact();
        }
    }

    /// How many of their disks take nothing.
    pub(crate) fn in_trouble(&self) -> usize {
        self.all().values_mut().filter_map(|account| account.purse.look().then_some(())).count()
    }

    /// Writes everything that is left.
    pub(crate) fn close(&self, relay: &mut Relay) -> Result<()> {
        let mut purses = core::mem::take(&mut *self.all());
        let first = relay.loops().first_account();
        for (number, payments) in (first..).zip(relay.account_payments()) {
            if let (Some(purse), Some(payments)) = (purses.remove(&number), payments) {
                purse.purse.close(payments)?;
            }
        }
        Ok(())
    }
}

/// Tells the relay of new epochs, and exchanges its accounts when one begins.
pub(crate) struct AccountKeeper {
    pub(crate) secret: Arc<Secret<Link>>,
    pub(crate) clock: Clock,
    /// Where accounts keep what payment needs.
    pub(crate) data: PathBuf,
    /// What accounts need of the chain; `None` in a network without payment.
    pub(crate) chain: Option<ClientChain>,
    pub(crate) bank: Option<Bank>,
    pub(crate) purses: AccountPurses,
    /// What the accounts need in their reserves, for whoever fills them.
    pub(crate) needs: watch::Sender<Vec<Need>>,
    pub(crate) stop: Shutdown,
    pub(crate) inputs: Inputs<RelayInput>,
    pub(crate) links: AccountLinks,
    pub(crate) registry: LinkRegistry,
    /// Accounts there were so far: numbers are not used again.
    pub(crate) count: usize,
    /// Tell the accounts what the chain says.
    pub(crate) watching: Vec<ClientWatch>,
    /// What the relay was told last, and has taken.
    pub(crate) told: Option<Arc<Standing>>,
}

impl AccountKeeper {
    /// Tells the relay, if what its packets use has changed.
    ///
    /// # Errors
    /// The accounts of a new epoch could not be started; the next call tries again.
    pub(crate) async fn apply(&mut self, standing: &Arc<Standing>) -> Result<()> {
        self.exchange(standing).await?;
        self.told = Some(Arc::clone(standing));
        Ok(())
    }

    async fn exchange(&mut self, standing: &Arc<Standing>) -> Result<()> {
        let before = self.told.clone();
        if let Some(bank) = &self.bank {
            bank.follow(&standing.open);
            self.inputs.pass(RelayInput::Open(Box::new(standing.open.clone()))).await;
        }
        if before.as_ref().is_some_and(|before| before.sends_as(standing)) {
            return Ok(());
        }
        let views = standing.send.clone();
        let current = Arc::clone(&views.current);
        if before.is_some_and(|before| Arc::ptr_eq(&before.send.current, &current)) {
            self.inputs.pass(RelayInput::Views(Box::new(NewViews { views, accounts: None }))).await;
            return Ok(());
        }
        let identity = LinkSecret::from_seed(*self.secret.expose()).identity();
        let is_mix = Seat::of(Arc::clone(&current), &identity)
            .is_some_and(|seat| matches!(seat.role(), Role::Mix { .. }));
        let drawn = if is_mix { draw(&current, self.secret.expose()) } else { Vec::new() };
        let (mut clients, mut links) = (Vec::new(), Vec::new());
        let (mut purses, mut watches, mut needs) = (BTreeMap::new(), Vec::new(), Vec::new());
        for Account { gateway, addresses, link, keys, purse } in drawn {
            // It is of this epoch's list.
            let seed = derive::random_seed()?;
            let Some(client) = Client::account(self.clock.now(), Arc::clone(&current), keys, seed) else {
                continue;
            };
            let number = self.count + clients.len();
            let client = match &self.chain {
                Some(chain) => {
                    let (client, kept, watching, need) =
                        self.pay(chain, number, &current, gateway, client, &purse).await?;
                    watches.push(watching);
                    let outstanding = Arc::clone(&need.outstanding);
                    purses.insert(number, AccountPurse { purse: kept, outstanding });
                    needs.push(need);
                    client
                }
                None => client,
            };
            clients.push(client);
            links.push((link, Peer::dialled(gateway, addresses)));
        }
        let first = self.count;
        self.count += clients.len();
        // Those of accounts that go have written what they had within a tick; nobody signs for them any more.
        *self.purses.all() = purses;
        self.needs.send_replace(needs);
        // First the relay: what links of accounts say that it does not know, it does not hear.
        let new = NewViews { views, accounts: Some(clients) };
        self.inputs.pass(RelayInput::Views(Box::new(new))).await;
        // What the chain says is for the new accounts now; nobody asks for the old ones any more.
        watches.iter_mut().for_each(ClientWatch::begin);
        self.watching = watches;
        let mut started = BTreeMap::new();
        for (account, (secret, gateway)) in (first..).zip(links) {
            let (gateway_key, outlet) = (gateway.identity, Arc::default());
            let links = match self.start(account, secret, gateway, &outlet).await {
                Ok(links) => links,
                Err(error) => {
                    self.end(started.into_values().map(|link: AccountLink| link.links));
                    // They are opened again by the next try.
                    self.purses.all().clear();
                    self.watching.clear();
                    return Err(error);
                }
            };
            self.registry.add(links.clone());
            started.insert(account, AccountLink { gateway: gateway_key, links, outlet });
        }
        self.end(self.links.replace(started));
        Ok(())
    }

    fn end(&self, links: impl IntoIterator<Item = Links>) {
        for links in links {
            let registry = self.registry.clone();
            // It waits for the other end to hang up.
            tokio::spawn(async move { registry.end(&links).await });
        }
    }

    /// Lets an account pay its gateway.
    async fn pay(
        &self,
        chain: &ClientChain,
        number: usize,
        view: &EpochView,
        gateway: IdentityKey,
        client: Client,
        purse: &[u8; 32],
    ) -> Result<(Client, Purse, ClientWatch, Need)> {
        let signer = signer_of(purse)?;
        let file = self.data.join(format!("account-{}.redb", signer.address()));
        let node = view.gateway(&gateway).and_then(|index| view.epoch().node(index));
        let account = node.and_then(|node| node.account).context("the gateway has no account")?;
        let need = Need {
            account: signer.address(),
            gateway: Address::from(account.0),
            class: EpochPrices::of(view)
                .and_then(|prices| prices.client())
                .context("the epoch has no prices")?,
            rate: rate_of(view.parameters()),
            until: view.epoch().valid_until(),
            outstanding: Arc::default(),
        };
        let payer = ClientPayer {
            signer,
            gateway: need.gateway,
            file: &file,
            me: client.identity(),
            clock: self.clock,
            parameters: view.parameters(),
        };
        let inputs = self.inputs.clone();
        let tell = move |fact| {
            let inputs = inputs.clone();
            async move { inputs.pass(RelayInput::AccountFact { account: number, fact }).await }
        };
        let drops = Arc::clone(client.drops());
        let (payments, kept, watching) = chain.start(payer, drops, tell, &self.stop).await?;
        // Its price may be confirmed later than the epoch begins.
        watching.class(need.class);
        Ok((client.with_payments(self.clock.now(), payments), kept, watching, need))
    }

    async fn start(
        &self,
        account: usize,
        secret: LinkSecret,
        gateway: Peer,
        outlet: &Arc<Mutex<Outlet>>,
    ) -> Result<Links> {
        let outlet = Arc::clone(outlet);
        let mut config = LinkConfig::new(secret, Policy::DialOnly, CLIENT_PROTOCOL);
        config.outbound_queue = ACCOUNT_QUEUE;
        let sink = InputSink::new(self.inputs.clone(), move |change| match change {
            LinkChange::Connected(_) => {
                lock(&outlet).clear();
                RelayInput::AccountLink { account, connected: true }
            }
            LinkChange::Disconnected(_) => RelayInput::AccountLink { account, connected: false },
            LinkChange::Frame(_, frame) => RelayInput::AccountFrame { account, frame },
        })
        .without_padding();
        Ok(tombola_link::start(config, vec![gateway], Arc::new(sink)).await?)
    }

    /// Follows the epochs until `stop` is triggered.
    pub(crate) async fn follow(mut self, mut standing: watch::Receiver<Arc<Standing>>, stop: Shutdown) {
        let mut said = false;
        loop {
            let now = Arc::clone(&standing.borrow_and_update());
            let applied = self.apply(&now).await;
            let failed = applied.is_err();
            if let Err(error) = applied
                && !std::mem::replace(&mut said, true)
            {
                tracing::error!(%error, "the accounts of the new epoch did not start: no loops until they do; trying again");
            }
            said &= failed;
            tokio::select! {
                _ = stop.triggered() => return,
                () = tokio::time::sleep(RETRY), if failed => {}
                changed = standing.changed() => if changed.is_err() { return },
            }
        }
    }
}
