//! JSON-RPC, with errors that say whose fault they are.

use core::time::Duration;

use alloy_json_rpc::{ErrorPayload, RpcError, RpcRecv, RpcSend};
use alloy_primitives::Bytes;
use alloy_rpc_client::RpcClient;
use alloy_transport::{TransportError, TransportErrorKind};
use reqwest::Url;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use std::sync::Arc;
use thiserror::Error;

use crate::ledger::{LedgerError, Refusal};
use crate::revert::Revert;

/// Why there is no client for a URL.
#[derive(Debug, Error)]
pub enum UrlError {
    /// It is none.
    #[error("the address of the chain's server is no URL: {0}")]
    Syntax(String),
    /// Another protocol.
    #[error("the address of the chain's server begins with http:// or https://, not {0}://")]
    Scheme(String),
    /// This machine has no certificates to trust, or the like.
    #[error("this machine cannot make an encrypted connection: {0}")]
    Tls(String),
}

/// A server of JSON-RPC.
#[derive(Clone, Debug)]
pub(crate) struct Rpc {
    client: RpcClient,
    /// Its host: the rest of the URL may be a secret.
    server: String,
}

fn tls(url: &Url) -> Result<ClientConfig, UrlError> {
    let failed = |error: rustls::Error| UrlError::Tls(error.to_string());
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().map_err(failed)?;
    let builder = if url.scheme() == "https" {
        builder.with_platform_verifier().map_err(failed)?
    } else {
        // Without encryption nothing is verified, and a machine without certificates will do.
        builder.with_root_certificates(RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}

impl Rpc {
    pub(crate) fn new(url: &str, timeout: Duration) -> Result<Self, UrlError> {
        let url = Url::parse(url).map_err(|error| UrlError::Syntax(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlError::Scheme(url.scheme().into()));
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(&url)?)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(timeout)
            .build()
            .map_err(|error| UrlError::Tls(error.without_url().to_string()))?;
        let host = url.host_str().unwrap_or_default();
        let server = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { client: RpcClient::new_http_with_client(client, url), server })
    }

    /// Asks, and waits for the answer no longer than the timeout.
    pub(crate) async fn ask<P: RpcSend, R: RpcRecv>(
        &self,
        method: &'static str,
        params: P,
    ) -> Result<R, LedgerError> {
        let asked = self.client.request(method, params);
        asked.await.map_err(|error| self.explain(method, error))
    }

    fn unavailable(&self, what: String) -> LedgerError {
        LedgerError::Unavailable { server: self.server.clone(), what }
    }

    fn explain(&self, method: &'static str, error: TransportError) -> LedgerError {
        match error {
            RpcError::ErrorResp(payload) => self.refused(method, &payload),
            RpcError::Transport(kind) => self.transport(method, kind),
            RpcError::DeserError { err, .. } => LedgerError::Answer { method, what: err.to_string() },
            RpcError::NullResp => LedgerError::Answer { method, what: "it is null".into() },
            other => LedgerError::Answer { method, what: other.to_string() },
        }
    }

    fn transport(&self, method: &'static str, kind: TransportErrorKind) -> LedgerError {
        match kind {
            TransportErrorKind::HttpError(error)
            | TransportErrorKind::HttpErrorWithRetryAfter { error, .. } => match error.status {
                401 | 403 => LedgerError::Answer {
                    method,
                    what: format!("status {}: the server wants a key, or another one", error.status),
                },
                status => self.unavailable(format!("status {status}")),
            },
            // Its text may have the whole URL, and with it a key of the operator.
            TransportErrorKind::Custom(error) => match error.downcast::<reqwest::Error>() {
                Ok(error) if error.is_timeout() => self.unavailable("no answer in time".into()),
                Ok(error) if error.is_connect() => self.unavailable("no connection".into()),
                Ok(error) => self.unavailable(error.without_url().to_string()),
                Err(_) => self.unavailable("the connection failed".into()),
            },
            _ => self.unavailable("the connection failed".into()),
        }
    }

    fn refused(&self, method: &'static str, payload: &ErrorPayload) -> LedgerError {
        let message: String = payload.message.chars().take(300).collect();
        let lower = message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        match method {
            "eth_call" | "eth_estimateGas" if payload.code == 3 || says(&["revert"]) => {
                LedgerError::Reverted(Revert::decode(&revert_data(payload)))
            }
            "eth_estimateGas" | "eth_sendRawTransaction" => match refusal(&lower) {
                Some(reason) => LedgerError::Transaction { reason, message },
                None if says(&["limit exceeded", "too many requests", "rate limit"]) => {
                    self.unavailable(message)
                }
                None => LedgerError::Transaction { reason: Refusal::Other, message },
            },
            "eth_getLogs" if payload.code == -32005 || says(TOO_MUCH) => LedgerError::TooMuch(message),
            _ if payload.code == 429
                || payload.code == -32005
                || says(&["too many requests", "rate limit"]) =>
            {
                self.unavailable(message)
            }
            _ => LedgerError::Refused { method, code: payload.code, message },
        }
    }
}

/// What servers say when a range of logs is too long for them.
const TOO_MUCH: &[&str] =
    &["range", "more than", "limit", "too many", "too large", "exceed", "timeout", "timed out"];

/// What servers say of transactions.
fn refusal(message: &str) -> Option<Refusal> {
    const WORDS: [(&str, Refusal); 18] = [
        ("already known", Refusal::Known),
        ("already imported", Refusal::Known),
        ("known transaction", Refusal::Known),
        ("nonce too low", Refusal::NonceTooLow),
        ("nonce is too low", Refusal::NonceTooLow),
        ("oldnonce", Refusal::NonceTooLow),
        ("nonce too high", Refusal::NonceTooHigh),
        ("underpriced", Refusal::Underpriced),
        ("fee too low to replace", Refusal::Underpriced),
        ("less than block base fee", Refusal::FeeTooLow),
        ("feetoolow", Refusal::FeeTooLow),
        ("fee cap less", Refusal::FeeTooLow),
        ("insufficient funds", Refusal::Funds),
        ("gas limit too high", Refusal::TooLarge),
        ("exceeds block gas limit", Refusal::TooLarge),
        ("greater than the cap", Refusal::TooLarge),
        ("oversized data", Refusal::TooLarge),
        ("gas required exceeds", Refusal::TooLarge),
    ];
    // "replacement transaction underpriced" is about one that waits, "transaction underpriced" about the price itself.
    if message.contains("transaction underpriced") && !message.contains("replacement") {
        return Some(Refusal::FeeTooLow);
    }
    WORDS.iter().find(|(words, _)| message.contains(words)).map(|(_, reason)| *reason)
}

/// The data of a revert, which servers put in different places.
fn revert_data(payload: &ErrorPayload) -> Bytes {
    fn find(value: &serde_json::Value) -> Option<Bytes> {
        match value {
            serde_json::Value::String(text) => {
                // One server writes "Reverted 0x...".
                let digits = text.rsplit(' ').next()?;
                digits.starts_with("0x").then(|| digits.parse().ok()).flatten()
            }
            serde_json::Value::Object(fields) => {
                ["data", "result", "output"].iter().find_map(|name| find(fields.get(*name)?))
            }
            _ => None,
        }
    }
    let data = payload.data.as_ref().and_then(|data| serde_json::from_str(data.get()).ok());
    data.as_ref().and_then(find).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_none_are_refused() {
        let new = |url| Rpc::new(url, Duration::from_secs(1));
        assert!(matches!(new("nonsense"), Err(UrlError::Syntax(_))));
        assert!(matches!(new("ws://localhost"), Err(UrlError::Scheme(scheme)) if scheme == "ws"));
        let rpc = new("http://user:word@localhost:1234/secret").unwrap();
        assert_eq!(rpc.server, "localhost:1234");
    }

    #[tokio::test]
    async fn an_outage_does_not_show_the_key_in_the_url() {
        let rpc = Rpc::new("http://127.0.0.1:1/secret", Duration::from_secs(5)).unwrap();
        let error = rpc.ask::<_, String>("eth_chainId", ()).await.unwrap_err();
        assert!(error.is_outage());
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn refusals_are_told_apart() {
        for (message, reason) in [
            ("already known", Some(Refusal::Known)),
            ("nonce too low: next nonce 3, tx nonce 2", Some(Refusal::NonceTooLow)),
            ("replacement transaction underpriced", Some(Refusal::Underpriced)),
            ("transaction underpriced: tip needed 1", Some(Refusal::FeeTooLow)),
            ("max fee per gas less than block base fee", Some(Refusal::FeeTooLow)),
            ("insufficient funds for gas * price + value", Some(Refusal::Funds)),
            ("the sky fell", None),
        ] {
            assert_eq!(refusal(message), reason, "{message}");
        }
    }

    #[test]
    fn the_data_of_a_revert_is_found_wherever_it_is() {
        let payload = |data: &str| ErrorPayload {
            code: 3,
            message: "execution reverted".into(),
            data: serde_json::value::RawValue::from_string(data.into()).ok(),
        };
        for data in
            [r#""0x0102""#, r#"{"data":"0x0102"}"#, r#""Reverted 0x0102""#, r#"{"data":{"data":"0x0102"}}"#]
        {
            assert_eq!(revert_data(&payload(data)), Bytes::from_static(&[1, 2]), "{data}");
        }
        assert_eq!(revert_data(&payload("7")), Bytes::new());
    }
}
