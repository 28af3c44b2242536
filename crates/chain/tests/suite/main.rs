//! The chain, from deployment to payment.

mod keystore;
