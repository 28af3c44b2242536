//! The simulator agrees with theory, with published scenarios and with the deployed code.

use tombola_sim::verify::{Check, Effort, Setting, oracles, reference};
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
    passed(&checks, 30);
}

#[test]
fn published_scenarios() {
    let mut checks = Vec::new();
    reference::run(reference::OWN, SETTING, &Control::default(), &mut |check| checks.push(check)).unwrap();
    passed(&checks, 20);
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
