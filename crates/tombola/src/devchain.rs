//! `tombola devchain`: a chain for development, behind the JSON-RPC that other chains have.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use tokio::net::TcpListener;
use tombola_chain::devchain::{DevChain, Genesis, MOST_ACCOUNTS};
use tombola_client::Home;
use tombola_node::entry::{RunFlags, print_line};
use tombola_node::files::Lock;
use tombola_node::shutdown::Shutdown;
use tombola_tickets::Address;
use tombola_topology::duration;

use crate::local::{Funder, Till};

/// Its flags.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where JSON-RPC is served; port 0 takes any.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8545")]
    listen: SocketAddr,
    /// Make an empty block this often too, such as "1s"; transactions always make one at once.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    block_time: Option<Duration>,
    /// The chain's id.
    #[arg(long, value_name = "NUMBER", default_value_t = 31_337)]
    chain_id: u64,
    /// How many accounts have 10 000 ether at the beginning.
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    accounts: u32,
    /// From which the keys of these accounts follow. Whoever knows it has them.
    #[arg(long, value_name = "TEXT", default_value = "tombola")]
    seed: String,
    /// Go on with the chain in this file, if there is one, and write it there.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// How often the file is written, besides at the end.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    save_every: Duration,
    #[command(flatten)]
    run: RunFlags,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Give a client of a network on such a chain an account of its own: a key, what gas costs, and a reserve from which its
    /// gateway is paid.
    Fund {
        /// The client's folder.
        #[arg(long, value_name = "FOLDER")]
        home: PathBuf,
        /// The chain's JSON-RPC.
        #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8545")]
        rpc_url: String,
        /// The Web3 keystore of an account that pays; default: the first account of chains for development.
        #[arg(long, value_name = "FILE", requires = "funder_password")]
        funder: Option<PathBuf>,
        /// The file of its password, one line.
        #[arg(long, value_name = "FILE", requires = "funder")]
        funder_password: Option<PathBuf>,
        /// Blocks that must follow before something counts as final.
        #[arg(long, value_name = "BLOCKS", default_value_t = 0)]
        confirmations: u64,
    },
}

/// Makes a client of a network for development able to pay.
fn fund(home: &Path, url: &str, funder: Option<Funder>, confirmations: u64) -> Result<()> {
    let opened = Home::open(home)?;
    let config = home.join("payment.toml");
    ensure!(!config.exists(), "{}: the client has an account already", config.display());
    let payment = opened.view().epoch().payment();
    let escrow =
        payment.context("packets of this client's network are not paid for: it needs no account")?.escrow;
    drop(opened);
    let till = Till::of(url, funder.as_ref(), confirmations, Address::from(escrow.0))?;
    print_line(till.equip(home)?);
    Ok(())
}

/// Serves a chain until a signal comes.
///
/// # Errors
///
/// The flags make no sense, the state cannot be read or written, or the port is taken.
pub fn run(args: &Args) -> Result<()> {
    args.run.init_logging()?;
    if let Some(Command::Fund { home, rpc_url, funder, funder_password, confirmations }) = &args.command {
        let funder = funder.clone().zip(funder_password.clone());
        let funder = funder.map(|(keystore, password)| Funder { keystore, password });
        return fund(home, rpc_url, funder, *confirmations);
    }
    ensure!(args.accounts <= MOST_ACCOUNTS, "--accounts is at most {MOST_ACCOUNTS}");
    ensure!(args.block_time.is_none_or(|time| !time.is_zero()), "--block-time is more than 0");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> Result<()> {
    // Before the file is read: whoever has the lock may still change it.
    let _lock = args.state.as_deref().map(lock).transpose()?;
    let chain = Arc::new(open(args)?);
    let shutdown = Shutdown::new();
    shutdown.on_signals().context("signals cannot be caught")?;
    if args.run.exit_with_stdin {
        shutdown.on_stdin_closed().context("standard input cannot be read")?;
    }
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("{} cannot be listened on; name another with --listen", args.listen))?;
    if let Some(path) = &args.state {
        // A file that cannot be written is told now, rather than when the chain is lost.
        chain.save(path).context("the chain cannot be written to the file of --state")?;
    }
    let server = chain.start(listener)?;
    announce(&chain, &server.url())?;
    let mining = async {
        match args.block_time {
            Some(interval) => chain.mine_every(interval).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = shutdown.triggered() => {}
        () = mining => {}
        () = save(&chain, args) => {}
    }
    drop(server);
    match &args.state {
        Some(path) => chain.save(path).context("the chain could not be written at the end"),
        None => Ok(()),
    }
}

/// Keeps a second process from the file: each would write over what the other has written. The lock is on a file beside it, since
/// the file itself is exchanged whenever it is written.
fn lock(state: &Path) -> Result<Lock> {
    let mut beside = state.as_os_str().to_owned();
    beside.push(".lock");
    match Lock::create(Path::new(&beside)) {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind() == ErrorKind::WouldBlock => bail!(
            "{}: another process serves the chain in this file of --state: end that one, or name another file",
            state.display()
        ),
        Err(error) => {
            Err(error).with_context(|| format!("the file of --state, {}, cannot be locked", state.display()))
        }
    }
}

fn open(args: &Args) -> Result<DevChain> {
    let found = match &args.state {
        Some(path) => DevChain::open(path)?,
        None => None,
    };
    let Some(chain) = found else {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Args { chain_id, accounts, .. } = *args;
        return Ok(DevChain::new(Genesis { chain_id, accounts, seed: args.seed.clone(), time }));
    };
    let id = chain.genesis().chain_id;
    ensure!(
        id == args.chain_id,
        "the file of --state has a chain of the id {id}, not {}: name that id, or another file",
        args.chain_id
    );
    Ok(chain)
}

/// One line, for whoever started this and waits for it.
fn announce(chain: &DevChain, url: &str) -> Result<()> {
    let (number, _) = chain.head();
    let Genesis { chain_id, accounts, .. } = chain.genesis();
    let mut output = std::io::stdout().lock();
    writeln!(output, "development chain {chain_id} at {url}, block {number}, {accounts} accounts")?;
    output.flush().context("standard output is closed")
}

/// Writes the chain when it has changed.
async fn save(chain: &DevChain, args: &Args) {
    let Some(path) = &args.state else { return std::future::pending().await };
    let mut written = None;
    loop {
        tokio::time::sleep(args.save_every.max(Duration::from_millis(100))).await;
        let head = chain.head();
        if written == Some(head) {
            continue;
        }
        match chain.save(path) {
            Ok(()) => written = Some(head),
            // It is tried again, and the last time decides.
            Err(error) => tracing::warn!("the chain could not be written: {error}"),
        }
    }
}
