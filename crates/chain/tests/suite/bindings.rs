//! The bindings are those of the contracts that are checked in.

use std::collections::BTreeSet;

use alloy_primitives::keccak256;
use serde_json::Value;
use tombola_chain::bindings::{Escrow, Registry, TestToken};

const SOURCE: &str = include_str!("../../src/bindings.rs");

/// One contract: what was compiled of its bindings, what the source says, and its artefact.
struct Contract {
    name: &'static str,
    artifact: Value,
    functions: Vec<(&'static str, Vec<u8>)>,
    events: Vec<(&'static str, Vec<u8>)>,
    errors: Vec<(&'static str, Vec<u8>)>,
}

macro_rules! contract {
    ($name:ident, $functions:ident, $events:ident, $errors:ident) => {{
        fn pairs<const N: usize>(
            signatures: &[&'static str],
            selectors: &[[u8; N]],
        ) -> Vec<(&'static str, Vec<u8>)> {
            assert_eq!(signatures.len(), selectors.len());
            signatures.iter().copied().zip(selectors.iter().map(|selector| selector.to_vec())).collect()
        }
        let text = include_str!(concat!("../../../../contracts/artifacts/", stringify!($name), ".json"));
        Contract {
            name: stringify!($name),
            artifact: serde_json::from_str(text).unwrap(),
            functions: pairs($name::$functions::SIGNATURES, $name::$functions::SELECTORS),
            events: pairs($name::$events::SIGNATURES, $name::$events::SELECTORS),
            errors: pairs($name::$errors::SIGNATURES, $name::$errors::SELECTORS),
        }
    }};
}

fn contracts() -> [Contract; 3] {
    [
        contract!(Escrow, EscrowCalls, EscrowEvents, EscrowErrors),
        contract!(Registry, RegistryCalls, RegistryEvents, RegistryErrors),
        contract!(TestToken, TestTokenCalls, TestTokenEvents, TestTokenErrors),
    ]
}

/// A type as signatures have it.
fn abi_type(parameter: &Value) -> String {
    let name = parameter["type"].as_str().unwrap();
    match name.strip_prefix("tuple") {
        Some(array) => {
            let parts: Vec<_> = parameter["components"].as_array().unwrap().iter().map(abi_type).collect();
            format!("({}){array}", parts.join(","))
        }
        None => name.to_owned(),
    }
}

fn abi_types(parameters: &Value) -> Vec<String> {
    let indexed = |parameter: &Value| if parameter["indexed"] == true { " indexed" } else { "" };
    let parameters = parameters.as_array().into_iter().flatten();
    parameters.map(|parameter| abi_type(parameter) + indexed(parameter)).collect()
}

/// Kind, name and everything that decides how a declaration is encoded and decoded.
fn shape(kind: &str, name: &str, inputs: &[String], view: bool, outputs: &[String]) -> String {
    let view = if view { " view" } else { "" };
    format!("{kind} {name}({}){view} returns ({})", inputs.join(", "), outputs.join(", "))
}

impl Contract {
    fn abi(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.artifact["abi"].as_array().unwrap().iter().filter(move |item| item["type"] == kind)
    }

    /// Signatures of this kind that the artefact has.
    fn signatures(&self, kind: &str) -> BTreeSet<String> {
        let signature = |item: &Value| {
            let types: Vec<_> = item["inputs"].as_array().unwrap().iter().map(abi_type).collect();
            format!("{}({})", item["name"].as_str().unwrap(), types.join(","))
        };
        self.abi(kind).map(signature).collect()
    }

    /// What the artefact declares.
    fn shapes(&self) -> BTreeSet<String> {
        let shape = |item: &Value| {
            let view = matches!(item["stateMutability"].as_str(), Some("view" | "pure"));
            let name = item["name"].as_str().unwrap_or_default();
            let (inputs, outputs) = (abi_types(&item["inputs"]), abi_types(&item["outputs"]));
            shape(item["type"].as_str().unwrap(), name, &inputs, view, &outputs)
        };
        self.artifact["abi"].as_array().unwrap().iter().map(shape).collect()
    }

    /// What the source of the bindings declares.
    fn declared(&self) -> Vec<String> {
        let (_, rest) = SOURCE.split_once(&format!("contract {} {{", self.name)).unwrap();
        let body = rest.split_once("\nsol! {").map_or(rest, |(body, _)| body);
        let kinds = ["function ", "event ", "error ", "constructor("];
        let declarations = body.split(';').map(|text| text.trim_matches(['}', ' ', '\n']));
        let wanted = declarations.filter(|text| kinds.iter().any(|kind| text.starts_with(kind)));
        wanted.map(|text| declaration(body, text)).collect()
    }
}

/// A declaration of the bindings in the form of [`shape`].
fn declaration(body: &str, text: &str) -> String {
    let (head, rest) = text.split_once('(').unwrap();
    let (inputs, rest) = rest.split_once(')').unwrap();
    let outputs =
        rest.split_once("returns").map_or("", |(_, outputs)| outputs.trim().trim_matches(['(', ')']));
    let types = |list: &str| -> Vec<String> {
        let parameters = list.split(',').map(str::trim).filter(|parameter| !parameter.is_empty());
        parameters.map(|parameter| parameter_type(body, parameter)).collect()
    };
    let (kind, name) = head.split_once(' ').unwrap_or((head, ""));
    let view = rest.split_whitespace().any(|word| word == "view" || word == "pure");
    shape(kind, name, &types(inputs), view, &types(outputs))
}

fn parameter_type(body: &str, parameter: &str) -> String {
    let mut words = parameter.split_whitespace();
    let name = words.next().unwrap();
    let indexed = if words.any(|word| word == "indexed") { " indexed" } else { "" };
    if body.contains(&format!("enum {name} {{")) {
        return format!("uint8{indexed}");
    }
    let Some((_, fields)) = body.split_once(&format!("struct {name} {{")) else {
        return format!("{name}{indexed}");
    };
    let (fields, _) = fields.split_once('}').unwrap();
    let fields = fields.split(';').map(str::trim).filter(|field| !field.is_empty());
    let types: Vec<_> = fields.map(|field| parameter_type(body, field)).collect();
    format!("({}){indexed}", types.join(","))
}

#[test]
fn what_is_bound_is_in_the_artefacts_with_the_same_signature() {
    for contract in contracts() {
        let groups = [
            ("function", &contract.functions, 4),
            ("event", &contract.events, 32),
            ("error", &contract.errors, 4),
        ];
        for (kind, bound, len) in groups {
            assert!(!bound.is_empty(), "{}: no {kind}", contract.name);
            let signatures = contract.signatures(kind);
            for (signature, selector) in bound {
                assert!(
                    signatures.contains(*signature),
                    "{}: the artefact has no {kind} {signature}",
                    contract.name
                );
                assert_eq!(*selector, keccak256(signature)[..len], "{}: {kind} {signature}", contract.name);
            }
        }
    }
}

/// A signature says nothing of what a function returns, of its being a view, and of which parameters are topics.
#[test]
fn what_is_bound_is_decoded_as_the_artefacts_say() {
    for contract in contracts() {
        let (declared, shapes) = (contract.declared(), contract.shapes());
        for shape in &declared {
            assert!(shapes.contains(shape), "{}: the artefact has no {shape}", contract.name);
        }
        let constructors = declared.iter().filter(|shape| shape.starts_with("constructor")).count();
        let compiled = contract.functions.len() + contract.events.len() + contract.errors.len();
        assert_eq!(declared.len(), compiled + constructors, "{}: all are looked at", contract.name);
    }
}

#[test]
fn every_error_and_event_of_escrow_and_registry_is_bound() {
    let [escrow, registry, _] = contracts();
    for contract in [escrow, registry] {
        for (kind, bound) in [("error", &contract.errors), ("event", &contract.events)] {
            let bound: BTreeSet<_> = bound.iter().map(|(signature, _)| (*signature).to_owned()).collect();
            assert_eq!(contract.signatures(kind), bound, "{}: {kind}", contract.name);
        }
    }
}
