//! The simulator agrees with theory, with published scenarios and with the deployed code.

use tombola_sim::verify::{Check, Effort, Setting, Tolerance, oracles, reference};
use tombola_sim::world::Control;

const SETTING: Setting = Setting { effort: Effort::Quick, threads: 2 };

fn passed(checks: &[Check], least: usize) {
    let failed: Vec<String> = checks.iter().filter(|check| !check.passed()).map(Check::to_string).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(checks.len() >= least, "{}", checks.len());
}

#[test]
fn theory() {
    let mut checks = Vec::new();
    oracles::run(SETTING, &Control::default(), &mut |check| checks.push(check)).unwrap();
    passed(&checks, 49);
}

#[test]
fn published_scenarios() {
    let mut checks = Vec::new();
    reference::run(reference::OWN, SETTING, &Control::default(), &mut |check| checks.push(check)).unwrap();
    passed(&checks, 20);
}

/// What is found of a single mix with these keys changed.
fn changed(changes: &[(&str, serde_json::Value)]) -> Vec<Check> {
    let mut entry = serde_json::json!({
        "id": "x", "layers": 1, "width": 1, "clients": 10, "payload_rate_per_client_per_s": 1.0,
        "mix_delay_mean_s": 1.0, "entropy_bits": { "value": 4.763_046 },
    });
    changes.iter().for_each(|(key, value)| entry[*key] = value.clone());
    let text = serde_json::json!({ "scenarios": [entry] }).to_string();
    let mut checks = Vec::new();
    reference::run(&text, SETTING, &Control::default(), &mut |check| checks.push(check)).expect("the format");
    checks
}

#[test]
fn a_client_alone_is_as_good_as_two_that_send_half_as_much() {
    let checks = changed(&[("clients", 1.into()), ("payload_rate_per_client_per_s", 10.0.into())]);
    passed(&checks, 2);
}

#[test]
fn scenarios_that_cost_much_still_have_targets_and_a_standard_error() {
    // 8000 packets a second, which the budget allows for less than a minute.
    let checks = changed(&[
        ("clients", 8000.into()),
        ("layers", 3.into()),
        ("width", 2.into()),
        ("mix_delay_mean_s", 0.25.into()),
        ("entropy_bits", serde_json::json!({ "value": oracles::mean_field_entropy(8000.0, 3, 0.25) })),
    ]);
    passed(&checks, 2);
    let Tolerance::Within(tolerance) = checks[0].tolerance else { panic!("{}", checks[0]) };
    let name = &checks[0].name;
    let targets: u32 = name.split(' ').find_map(|word| word.parse().ok()).expect("their number");
    assert!(targets >= 12 && tolerance < 0.2, "{}", checks[0]);
}

#[test]
fn references_that_cannot_be_are_refused_by_name() {
    for (key, value, expected) in [
        (
            "mix_delay_mean_s",
            serde_json::json!(-1),
            "`mix_delay_mean_s`: expected a number above 0, found -1",
        ),
        (
            "payload_rate_per_client_per_s",
            0.into(),
            "`payload_rate_per_client_per_s`: expected a number above",
        ),
        ("link_delay_s", serde_json::json!(-0.1), "`link_delay_s`: expected a number from 0, found -0.1"),
        ("clients", 0.into(), "`clients`: expected at least 1"),
        ("layers", 300.into(), "`network.layers`: a route has at most 255"),
        ("mix_delay_mean_s", serde_json::json!(1e7), "`mix`: a packet may be under way"),
        ("mix_delay_mean_s", serde_json::json!(1e300), "`run.warm_up`: at most 1000000000 s"),
        ("corrupt_mixes_per_layer", 2.into(), "`network.corrupt_per_layer`: more than a layer has"),
    ] {
        let checks = changed(&[(key, value)]);
        assert!(checks.len() == 1 && !checks[0].passed(), "{key}");
        let expected = format!("x: {expected}");
        assert!(checks[0].name.starts_with(&expected), "{}\n{expected}", checks[0].name);
    }
    let mut checks = Vec::new();
    let text = r#"{"single_mix_entropy_bits": {"-1": 1.0, "nan": 1.0, "1e300": 998.0208}}"#;
    reference::run(text, SETTING, &Control::default(), &mut |check| checks.push(check)).unwrap();
    assert_eq!(checks.iter().filter(|check| check.tolerance == Tolerance::Impossible).count(), 2);
    assert_eq!(checks.len(), 3);
}

#[test]
fn a_wrong_reference_fails_and_one_that_nobody_understands_does_too() {
    let entry = |topology: &str, bits: f64| {
        format!(
            "{{\"scenarios\": [{{\"id\": \"x\", \"topology\": \"{topology}\", \"layers\": 1, \"width\": 1, \"clients\": 10,
              \"payload_rate_per_client_per_s\": 1.0, \"mix_delay_mean_s\": 1.0, \"entropy_bits\": {{\"value\": {bits}}}}}]}}"
        )
    };
    let entropy = |text: &str| {
        let mut checks = Vec::new();
        reference::run(text, SETTING, &Control::default(), &mut |check| checks.push(check)).unwrap();
        checks.remove(0)
    };
    assert!(entropy(&entry("stratified", 4.763_046)).passed());
    assert!(!entropy(&entry("stratified", 4.95)).passed());
    assert!(!entropy(&entry("torus", 4.763_046)).passed());
    assert!(reference::run("{", SETTING, &Control::default(), &mut |_| ()).is_err());
}
