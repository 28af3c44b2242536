//! A test of an application against a network of its own: two clients, a message there and back.
//!
//! ```sh
//! cargo build --release
//! TOMBOLA_BIN=target/release/tombola cargo run -p tombola --example two_clients
//! ```

use anyhow::{Context, Result};
use tombola::local::{LocalNetwork, Options};
use tombola_client::{Client, Content, Home};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example talks to a person")]
async fn main() -> Result<()> {
    tombola_client::install_crypto_provider();
    let network = LocalNetwork::start(&Options::default())?;
    let (alice, bob) = (Home::open(network.new_client("alice")?)?, Home::open(network.new_client("bob")?)?);
    let mut alice = Client::connect(&alice).await?;
    let mut bob = Client::connect(&bob).await?;

    alice.send(&bob.address(), &Content::Text("hello".to_owned())).await?;
    let got = bob.receive().await.context("bob has ended")?;
    println!("bob got {:?} in {} packet", got.content, got.packets);

    bob.send(&alice.address(), &Content::Text("hello yourself".to_owned())).await?;
    let got = alice.receive().await.context("alice has ended")?;
    println!("alice got {:?}", got.content);

    alice.close().await?;
    bob.close().await?;
    network.stop();
    Ok(())
}
