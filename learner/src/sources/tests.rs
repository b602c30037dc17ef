use pointsman_router::clock::Draw;

use super::*;

/// How a source labels an answer that is right with this probability, when this was drawn.
type Says = fn(f64, f64) -> f64;

fn truth(q: f64, drawn: f64) -> f64 {
    f64::from(u8::from(drawn < q))
}

fn inverted(q: f64, drawn: f64) -> f64 {
    1.0 - truth(q, drawn)
}

fn strict(q: f64, drawn: f64) -> f64 {
    truth(q - 0.1, drawn)
}

/// Sources, each with how often it speaks out of a hundred times; predictions are as good as can be.
fn after(labels: usize, sources: &[(&str, f64, Says)]) -> Sources {
    let mut watched = Sources::default();
    let mut draw = Draw::from_seed(5);
    for _ in 0..labels {
        let mut left = 100.0 * draw.uniform();
        let speaks = |(_, often, _): &&(&str, f64, Says)| {
            left -= often;
            left < 0.0
        };
        let Some((source, _, says)) = sources.iter().find(speaks) else { continue };
        let lane = if draw.uniform() < 0.5 { 0 } else { 1 };
        let q = if draw.uniform() < 0.5 { 0.2 } else { 0.85 };
        let label = says(q, draw.uniform());
        watched.hear(Witness { source, share_max: 0.1 }, &Heard { lane, label, predicted: q });
    }
    watched
}

#[track_caller]
fn check(sources: &[(&str, f64, Says)], expected: &[&str]) {
    let watched = after(4_000, sources);
    let found: Vec<&str> = watched.accounts().filter(|(_, a)| a.departs).map(|(source, _)| source).collect();
    assert_eq!(found, expected, "seed 5");
    for (source, account) in watched.accounts().filter(|(source, _)| !expected.contains(source)) {
        assert!((account.taught - account.labels as f64).abs() < 1e-9, "{source} {account:?}");
    }
}

#[test]
fn who_departs_is_told_by_the_others() {
    check(&[("a", 100.0, inverted)], &[]);
    check(&[("a", 40.0, truth), ("b", 30.0, truth), ("c", 30.0, truth)], &[]);
    check(&[("a", 40.0, truth), ("b", 30.0, truth), ("c", 30.0, strict)], &[]);
    check(&[("a", 40.0, truth), ("b", 40.0, truth), ("c", 20.0, inverted)], &["c"]);
    // The louder of two is the rule, and of two as loud as each other nobody is.
    check(&[("a", 80.0, truth), ("b", 20.0, inverted)], &["b"]);
    check(&[("a", 50.0, truth), ("b", 50.0, inverted)], &[]);
    // One that speaks more often than all others together is outvoted all the same.
    check(
        &[
            ("a", 10.0, truth),
            ("b", 10.0, truth),
            ("c", 10.0, truth),
            ("d", 10.0, truth),
            ("loud", 60.0, inverted),
        ],
        &["loud"],
    );
}

#[test]
fn whoever_departs_keeps_to_its_share_and_is_forgiven_in_time() {
    let sources: [(&str, f64, Says); 3] = [("a", 40.0, truth), ("b", 40.0, truth), ("c", 20.0, inverted)];
    let watched = after(20_000, &sources);
    let account = &watched.accounts["c"];
    let bound = 300.0 + BURST + 0.1 * watched.taught;
    assert!(account.labels > 3_500 && account.taught < bound, "{account:?} {}", watched.taught);
    let mut watched = watched;
    let mut draw = Draw::from_seed(6);
    for turn in 0..20_000 {
        let source = ["a", "b", "c"][turn % 3];
        let label = truth(0.8, draw.uniform());
        watched.hear(Witness { source, share_max: 0.1 }, &Heard { lane: 0, label, predicted: 0.8 });
    }
    assert!(!watched.accounts["c"].departs);
}

#[test]
fn a_share_of_one_limits_nobody_and_a_share_of_none_mutes() {
    let mut watched = after(4_000, &[("a", 40.0, truth), ("b", 40.0, truth), ("c", 20.0, inverted)]);
    let weigh = |watched: &mut Sources, share_max| watched.weigh(Witness { source: "c", share_max });
    assert_eq!(weigh(&mut watched, 1.0).to_bits(), 1.0_f64.to_bits());
    assert!(weigh(&mut watched, 0.0) < 1.0);
    assert_eq!(weigh(&mut watched, 0.0).to_bits(), 0.0_f64.to_bits());
}

#[test]
fn accounts_have_a_bound_and_those_that_said_much_stay() {
    let mut watched = after(2_000, &[("a", 50.0, truth), ("b", 50.0, truth)]);
    for i in 0..1_000 {
        let from = Witness { source: &format!("passing-{i}"), share_max: 0.1 };
        watched.hear(from, &Heard { lane: 0, label: 1.0, predicted: 0.5 });
    }
    assert_eq!(watched.accounts().len(), SOURCES_MAX);
    assert!(watched.accounts.contains_key("a") && watched.accounts.contains_key("b"));
}

#[test]
fn bytes_hold_all_of_it_and_no_others_are_taken() {
    let watched = after(3_000, &[("a", 40.0, truth), ("b", 40.0, truth), ("", 20.0, inverted)]);
    let mut bytes = Vec::new();
    watched.push(&mut bytes);
    let mut rest = bytes.as_slice();
    assert_eq!((Sources::take(&mut rest), rest.len()), (Some(watched), 0));
    for cut in 0..bytes.len() {
        assert_eq!(Sources::take(&mut &bytes[..cut]), None, "{cut}");
    }
}
