//! Prints its address, then every text that arrives.
//!
//! ```sh
//! tombola client --home echo init --network NETWORK.json --authority KEY
//! cargo run -p tombola-client --example echo -- echo
//! ```

use anyhow::{Context, Result};
use tombola_client::{Client, Content, Home};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example talks to a person")]
async fn main() -> Result<()> {
    tombola_client::install_crypto_provider();
    let folder = std::env::args().nth(1).context("usage: echo FOLDER (made by `tombola client init`)")?;
    let home = Home::open(folder)?;
    let mut client = Client::connect(&home).await?;
    println!("{}", client.address());
    while let Some(message) = client.receive().await {
        match message.content {
            Content::Text(text) => println!("{text}"),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
