//! The section `[payment]` of a configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tombola_chain::keystore::{Keystore, Password};
use tombola_chain::redeemer::{Terms, TokenPrice};
use tombola_tickets::{Address, SignerKey};

use crate::config::duration;

const WEI_IN_GWEI: u128 = 1_000_000_000;

/// The section `[payment]` of a configuration.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentConfig {
    /// The JSON-RPC of a full node of the chain: `http://…` or `https://…`. May have a key in it, and is never shown.
    pub rpc_url: String,
    /// The Web3 keystore of the key that signs, claims, and pays for gas.
    pub keystore: PathBuf,
    /// The file of its password, one line.
    pub password: PathBuf,
    /// The account that pays and is paid; absent: the key's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Blocks that must follow before something counts as final.
    #[serde(default = "default_confirmations")]
    pub confirmations: u64,
    /// The block in which the escrow was deployed, or an earlier one.
    #[serde(default)]
    pub start_block: u64,
    /// How often the chain is looked at.
    #[serde(default = "default_poll", with = "duration")]
    pub poll: Duration,
    /// How long claims wait on average, so that redemptions do not show when windows end.
    #[serde(default = "default_spread", with = "duration")]
    pub redeem_spread: Duration,
    /// Wei that the token's smallest unit is worth, such as "3" or "4/10000". Claims that cost more than they are worth wait; absent:
    /// everything is claimed, whatever it costs.
    #[serde(default, with = "price", skip_serializing_if = "Option::is_none")]
    pub token_price: Option<TokenPrice>,
    /// What claims must be worth of what they cost, while there is time; absent: 200.
    #[serde(default, deserialize_with = "bounds::percent", skip_serializing_if = "Option::is_none")]
    pub least_return_percent: Option<u32>,
    /// What is offered at most for each gas of a claim; absent: 500.
    #[serde(default, deserialize_with = "bounds::gwei", skip_serializing_if = "Option::is_none")]
    pub max_fee_gwei: Option<u64>,
    /// What a mix node puts at most into the reserves of its own accounts at gateways in an epoch, in the smallest unit of the token;
    /// 0: nothing; absent: what they need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_reserves: Option<String>,
}

impl fmt::Debug for PaymentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PaymentConfig");
        shown.field("confirmations", &self.confirmations).field("start_block", &self.start_block);
        shown.field("poll", &self.poll).field("redeem_spread", &self.redeem_spread);
        shown
            .field("token_price", &self.token_price)
            .field("least_return_percent", &self.least_return_percent);
        shown.field("max_fee_gwei", &self.max_fee_gwei).finish_non_exhaustive()
    }
}

impl PaymentConfig {
    /// The key that signs; paths start at `base`.
    ///
    /// # Errors
    /// Keystore or password are unusable.
    pub fn signer(&self, base: &Path) -> Result<SignerKey> {
        let password = Password::read(&base.join(&self.password))?;
        let bytes = Keystore::new(base.join(&self.keystore)).open_bytes(&password)?;
        SignerKey::from_bytes(&bytes).context("the keystore's key")
    }

    /// When claims for an account pay, and how long they wait.
    ///
    /// # Errors
    /// Keys contradict each other.
    pub fn terms(&self, account: Address) -> Result<Terms> {
        ensure!(
            self.token_price.is_some() || self.least_return_percent.is_none(),
            "the key \"payment.least_return_percent\" of the configuration has no effect without \"payment.token_price\": add that, or \
             leave both out"
        );
        let mut terms = Terms::new(account, self.token_price.unwrap_or(TokenPrice::ANY));
        terms.spread = self.redeem_spread;
        terms.least_return = self.least_return_percent.unwrap_or(terms.least_return);
        terms.max_fee = self.max_fee_gwei.map_or(terms.max_fee, |gwei| u128::from(gwei) * WEI_IN_GWEI);
        Ok(terms)
    }
}

fn default_confirmations() -> u64 {
    12
}

fn default_poll() -> Duration {
    Duration::from_secs(4)
}

fn default_spread() -> Duration {
    Duration::from_secs(3600)
}

/// Wei for so many of the token's smallest unit, as a whole number or a fraction.
mod price {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use tombola_chain::redeemer::TokenPrice;

    fn parse(text: &str) -> Option<TokenPrice> {
        let (wei, units) = text.split_once('/').unwrap_or((text, "1"));
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u128>().ok().filter(|&number| is_number && number > 0)
        };
        Some(TokenPrice { wei: number(wei)?, units: number(units)? })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<TokenPrice>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let price = parse(&text).ok_or_else(|| {
            de::Error::custom(format_args!(
                "expected the wei that the token's smallest unit is worth, more than 0, like \"3\" or \"4/10000\", found {text:?}"
            ))
        })?;
        Ok(Some(price))
    }

    pub(super) fn serialize<S: Serializer>(
        price: &Option<TokenPrice>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match price {
            Some(TokenPrice { wei, units: 1 }) => serializer.collect_str(wei),
            Some(TokenPrice { wei, units }) => serializer.collect_str(&format_args!("{wei}/{units}")),
            None => serializer.serialize_none(),
        }
    }
}

mod bounds {
    use serde::{Deserialize, Deserializer, de};

    /// Less than all of the cost would be a loss.
    pub(super) fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        match u32::deserialize(deserializer)? {
            percent @ 100.. => Ok(Some(percent)),
            percent => Err(de::Error::custom(format_args!(
                "expected 100 (what claims cost) or more, found {percent}: claims would be made at a loss"
            ))),
        }
    }

    pub(super) fn gwei<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        match u64::deserialize(deserializer)? {
            0 => {
                Err(de::Error::custom("expected 1 or more: for nothing no claim is ever taken into a block"))
            }
            gwei => Ok(Some(gwei)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &str) -> Result<PaymentConfig, String> {
        let text = format!("rpc_url = \"http://x\"\nkeystore = \"k\"\npassword = \"p\"\n{more}");
        crate::config::parse(Path::new("payment.toml"), &text).map_err(|error| error.to_string())
    }

    fn terms(more: &str) -> Result<Terms, String> {
        parse(more)?.terms(Address::ZERO).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_as_on_a_public_chain_and_claimed_at_any_price() {
        let expected = Terms::new(Address::ZERO, TokenPrice::ANY);
        assert_eq!(terms(""), Ok(expected));
        let never = Terms { spread: Duration::ZERO, max_fee: 20 * WEI_IN_GWEI, ..expected };
        assert_eq!(terms("redeem_spread = \"0s\"\nmax_fee_gwei = 20"), Ok(never));
    }

    #[test]
    fn a_price_is_a_number_or_a_fraction_and_written_as_it_was_read() {
        for (text, wei, units) in [("3", 3, 1), ("4/10000", 4, 10_000), ("1/1", 1, 1)] {
            let config = parse(&format!("token_price = {text:?}\nleast_return_percent = 150")).unwrap();
            let terms = config.terms(Address::ZERO).unwrap();
            assert_eq!((terms.price, terms.least_return), (TokenPrice { wei, units }, 150));
            let again: PaymentConfig =
                crate::config::parse(Path::new("again"), &toml::to_string(&config).unwrap()).unwrap();
            assert_eq!(again.token_price, config.token_price);
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_what_to_do() {
        for (more, expected) in [
            ("token_price = 3", "payment.toml, line 4: \"token_price\": expected a string"),
            ("token_price = \"0\"", "line 4: \"token_price\": expected the wei"),
            ("token_price = \"1/0\"", "found \"1/0\""),
            ("token_price = \"0.5\"", "like \"3\" or \"4/10000\""),
            ("token_price = \"+1\"", "found \"+1\""),
            (
                "token_price = \"1\"\nleast_return_percent = 99",
                "line 5: \"least_return_percent\": expected 100",
            ),
            ("least_return_percent = 120", "has no effect without \"payment.token_price\""),
            ("max_fee_gwei = 0", "line 4: \"max_fee_gwei\": expected 1 or more"),
            ("max_fee_gwei = \"2\"", "line 4: \"max_fee_gwei\""),
            ("max_fee = 2", "did you mean \"max_fee_gwei\"?"),
        ] {
            let error = terms(more).unwrap_err();
            assert!(error.contains(expected), "{more}: {error}");
        }
    }
}
