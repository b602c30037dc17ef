use super::*;

fn estimated(value: f64, reach: f64) -> Option<v1::Estimate> {
    Some(v1::Estimate { value, lower: Some(value - reach), upper: Some(value + reach) })
}

fn single(model: &str, value: f64, cost_usd_nanos: i64) -> v1::SingleValue {
    v1::SingleValue { model: model.to_owned(), value: estimated(value, 0.01), cost_usd_nanos, rows: 900 }
}

/// A dozen models whose points lie close together.
fn singles() -> Vec<v1::SingleValue> {
    let models = [
        ("gpt-4o-2024-05-13", 0.723, 2_900_000),
        ("gemini-1.5-pro-002", 0.719, 1_400_000),
        ("gemini-1.5-flash-002", 0.641, 90_000),
        ("Meta-Llama-3_1-70B-Instruct", 0.632, 480_000),
        ("deepseek-v2-chat", 0.548, 170_000),
        ("jamba-1.5-large", 0.531, 2_100_000),
        ("Qwen1.5-72B-Chat", 0.522, 510_000),
        ("Meta-Llama-3_1-8B-Instruct", 0.446, 60_000),
        ("mathstral-7B", 0.421, 82_000),
        ("Mixtral-8x7B-Instruct-v0.1", 0.434, 240_000),
        ("Phi-3-mini-4k-instruct", 0.452, 52_000),
        ("c4ai-command-r-v01", 0.377, 300_000),
    ];
    models.iter().map(|(name, value, cost)| single(name, *value, *cost)).collect()
}

fn gate(passes: bool) -> v1::Gate {
    let reason = |name: &str, holds, message: &str| v1::GateReason {
        name: name.to_owned(),
        holds,
        message: message.to_owned(),
    };
    v1::Gate {
        passes,
        reasons: vec![
            reason("SHOWN_BETTER", passes, "its gain of +0.021 is above 0 with its lower bound of +0.010"),
            reason("ENOUGH_ALIKE", true, "the log counts as 412 decisions of its own and 100 are needed"),
            reason("WITHIN_COST", true, "a request costs $0.00131 and may cost $0.0019"),
        ],
    }
}

fn evaluation(version: &str, value: f64, passes: bool) -> v1::Evaluation {
    let bin = |at: u32, rows| v1::ReliabilityBin {
        predicted_from: f64::from(at) / 15.0,
        predicted_to: f64::from(at + 1) / 15.0,
        rows,
        predicted_mean: (f64::from(at) + 0.5) / 15.0,
        right_mean: ((f64::from(at) + 0.5) / 15.0 + 0.03 * f64::from(at % 3) - 0.02).clamp(0.0, 1.0),
    };
    let point = |weight: f64, cost_usd_nanos, value| v1::FrontierPoint {
        cost_weight_per_dollar: weight,
        cost_usd_nanos,
        value: estimated(value, 0.015),
    };
    v1::Evaluation {
        version: version.to_owned(),
        incumbent_version: "bandit-2f6c01a9".to_owned(),
        evaluated_at: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 }),
        rows: 14_210,
        judged_rows: 9_875,
        effective_sample_size: 412.3,
        ips: estimated(value + 0.004, 0.024),
        snips: estimated(value + 0.001, 0.02),
        direct: estimated(value - 0.006, 0.009),
        doubly_robust: estimated(value, 0.013),
        incumbent: estimated(0.727, 0.008),
        difference: estimated(value - 0.727, 0.011),
        cost_usd_nanos: 1_310_000,
        incumbent_cost_usd_nanos: 1_900_000,
        best_single: singles().first().cloned(),
        singles: singles(),
        agreement_share: 0.71,
        calibration: Some(v1::Calibration {
            rows: 9_875,
            ece: 0.021,
            brier: 0.172,
            bins: (1..15).map(|at| bin(at, 60 + 90 * u64::from(at))).collect(),
        }),
        frontier: vec![
            point(0.0, 1_900_000, value + 0.006),
            point(10.0, 1_310_000, value),
            point(100.0, 620_000, value - 0.03),
            point(500.0, 210_000, value - 0.08),
            point(3_000.0, 90_000, 0.645),
        ],
        gate: Some(gate(passes)),
        held_out_fraction: 0.3,
        delta: 0.025,
        unsupported_share: 0.004,
        difference_to_single: estimated(value - 0.723, 0.014),
        cost_max_usd_nanos: Some(1_900_000),
    }
}

#[test]
fn a_page_stands_for_itself() {
    let page =
        of(&[evaluation("hybrid-91c2", 0.748, true), evaluation("classifier-07aa", 0.731, false)]).expect("draws");
    for outside in ["<script", "src=", "href=", "url(", "@import", "javascript:"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("hybrid-91c2 may be promoted"));
    assert_eq!(page.matches("<svg ").count(), 4, "forest, frontier, and a calibration each");
    assert!(page.contains("held back"));
    assert!(!page.contains("NaN"));
}

#[test]
fn a_name_is_only_text() {
    let evil = "<script>alert('x')</script>&\"";
    let mut found = evaluation(evil, 0.74, true);
    found.incumbent_version = evil.to_owned();
    found.singles[0].model = evil.to_owned();
    found.best_single = found.singles.first().cloned();
    found.gate.as_mut().expect("has one").reasons[0].message = evil.to_owned();
    let page = of(&[found]).expect("draws");
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script&gt;"));
}

#[test]
fn what_is_absent_or_no_number_leaves_no_hole() {
    let page = of(&[]).expect("draws");
    assert!(page.contains("no candidate"));
    let page = of(&[v1::Evaluation { version: "v".to_owned(), ..v1::Evaluation::default() }]).expect("draws");
    assert!(!page.contains("<svg "));
    let mut found = evaluation("v", f64::NAN, false);
    found.singles[3].cost_usd_nanos = 0;
    found.frontier[0].value = None;
    let page = of(&[found]).expect("draws");
    assert!(page.contains("<svg "));
}

#[test]
fn money_has_three_digits() {
    let check = |usd, exact: &str, round: &str| {
        assert_eq!((money(usd).as_str(), round_money(usd).as_str()), (exact, round));
    };
    check(0.0, "$0.00", "$0");
    check(0.000_29, "$0.000290", "$0.00029");
    check(0.083, "$0.0830", "$0.083");
    check(1.3, "$1.30", "$1.3");
    check(15.0, "$15.0", "$15");
    check(300.0, "$300", "$300");
    check(1_234.6, "$1235", "$1235");
}

#[test]
fn counts_and_scores() {
    assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    assert_eq!([0.7, 0.725, 1.0].map(round_score), ["0.70", "0.725", "1.00"]);
}
