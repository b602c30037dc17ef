use pointsman_router::clock::Draw;

use super::*;

/// Twelve rows made by rule, so that the figures below can be had from any other program.
fn rows() -> (Vec<Judged>, Vec<Plan>) {
    let row = |i: u32| {
        let x = f64::from(i);
        let part = |factor: u32, of: u32| f64::from(i * factor % of);
        let judged = Judged {
            cluster: u64::from(i),
            propensity: 0.1 + 0.8 * part(5, 12) / 12.0,
            weight: 1.0,
            reward: Observed { seen: part(3, 4) / 3.0, modelled: 0.3 + 0.04 * x },
            cost: Observed { seen: 1.0 + x, modelled: 2.0 + 0.5 * x },
        };
        let plan = Plan {
            propensity: part(7, 12) / 12.0,
            reward: 0.35 + 0.03 * part(4, 12),
            cost: 3.0 + 0.2 * x,
            unsupported: 0.0,
        };
        (judged, plan)
    };
    (0..12).map(row).unzip()
}

fn check(got: Estimate, value: f64, standard_error: f64) {
    assert!((got.value - value).abs() < 1e-12, "{got:?}, expected {value}");
    assert!((got.standard_error - standard_error).abs() < 1e-12, "{got:?}, expected {standard_error}");
}

/// The figures are numpy's: means, and `std(ddof=1)/sqrt(n)` of the terms.
#[test]
fn estimates_agree_with_numpy() {
    let (rows, plans) = rows();
    let found = estimate(&rows, &plans).unwrap();
    check(found.ips, 0.958_967_332_752_498_9, 0.460_930_155_874_181_8);
    check(found.snips, 0.651_180_834_283_790_5, 0.146_288_049_966_127_93);
    check(found.direct, 0.469_999_999_999_999_9, 0.029_541_957_835_039_854);
    check(found.doubly_robust, 0.630_008_088_873_481_3, 0.275_242_400_580_358_87);
    check(found.cost, 7.091_860_178_005_689, 1.397_539_278_996_808);
    let ess = found.effective_sample_size;
    assert!((ess - 5.539_576_258_974_663).abs() < 1e-12 && (found.weight_max - 5.5).abs() < 1e-12);
    assert!((found.weight_mean - 1.472_659_025_364_638_3).abs() < 1e-12 && found.rows == 12);
    assert!((found.doubly_robust.degrees - 4.179_421_099_716_149).abs() < 1e-9, "{:?}", found.doubly_robust);
    let (lower, upper) = found.doubly_robust.interval();
    assert!((lower + upper - 2.0 * found.doubly_robust.value).abs() < 1e-12 && lower < upper);
}

#[test]
fn clusters_weights_and_differences_agree_with_numpy() {
    let (rows, plans) = rows();
    let clustered: Vec<Judged> = rows.iter().map(|row| Judged { cluster: row.cluster / 3, ..*row }).collect();
    check(estimate(&clustered, &plans).unwrap().doubly_robust, 0.630_008_088_873_481_3, 0.242_883_809_856_333_4);
    let weighted: Vec<Judged> =
        (0..).zip(&rows).map(|(i, row)| Judged { weight: 1.0 + 0.5 * f64::from(i % 2), ..*row }).collect();
    check(estimate(&weighted, &plans).unwrap().doubly_robust, 0.705_324_376_722_572_9, 0.311_825_537_071_134_25);
    let baseline: Vec<Plan> = (0..12_u32)
        .map(|i| Plan {
            propensity: 0.05 + 0.9 * f64::from(i * 11 % 12) / 12.0,
            reward: 0.4 + 0.02 * f64::from(i),
            cost: 0.0,
            unsupported: 0.0,
        })
        .collect();
    let found = gain(&rows, &plans, &baseline).unwrap();
    check(found.reward, -0.042_459_880_907_195_6, 0.120_181_480_788_762_27);
    check(gain(&rows, &plans, &plans).unwrap().reward, 0.0, 0.0);
}

#[test]
fn repeating_every_row_in_its_cluster_tells_nothing_new() {
    let (rows, plans) = rows();
    let twice = |n: usize| n / 2;
    let doubled: Vec<Judged> = (0..24).map(|i| rows[twice(i)]).collect();
    let doubled_plans: Vec<Plan> = (0..24).map(|i| plans[twice(i)]).collect();
    let (once, both) = (estimate(&rows, &plans).unwrap(), estimate(&doubled, &doubled_plans).unwrap());
    check(both.doubly_robust, once.doubly_robust.value, once.doubly_robust.standard_error);
    check(both.snips, once.snips.value, once.snips.standard_error);
}

/// Every context and every set that the log may draw there, each row counting with its probability:
/// the mean over all logs. Whatever the model of rewards says, the true value comes out.
#[test]
fn over_all_logs_the_value_is_the_true_one() {
    let mut draw = Draw::from_seed(5);
    for _ in 0..50 {
        let (mut rows, mut plans, mut truth) = (Vec::new(), Vec::new(), 0.0);
        for context in 0..4_u64 {
            let mut chances = |sets: usize| -> Vec<f64> {
                let raw: Vec<f64> = (0..sets).map(|_| 0.02 + draw.uniform()).collect();
                raw.iter().map(|p| p / raw.iter().sum::<f64>()).collect()
            };
            let (log, policy) = (chances(3), chances(3));
            let rewards: Vec<f64> = (0..3).map(|_| draw.uniform()).collect();
            let modelled: Vec<f64> = (0..3).map(|_| draw.uniform()).collect();
            let value = |of: &[f64]| policy.iter().zip(of).map(|(p, r)| p * r).sum::<f64>();
            truth += value(&rewards) / 4.0;
            for set in 0..3 {
                let observed = Observed { seen: rewards[set], modelled: modelled[set] };
                rows.push(Judged {
                    cluster: context * 3 + set as u64,
                    propensity: log[set],
                    weight: log[set] / 4.0,
                    reward: observed,
                    cost: observed,
                });
                let direct = value(&modelled);
                plans.push(Plan { propensity: policy[set], reward: direct, cost: direct, unsupported: 0.0 });
            }
        }
        let found = estimate(&rows, &plans).unwrap();
        for got in [found.ips, found.snips, found.doubly_robust, found.cost] {
            assert!((got.value - truth).abs() < 1e-12, "{got:?} {truth}");
        }
        assert!((found.weight_mean - 1.0).abs() < 1e-12);
    }
}

#[test]
fn bad_rows_are_named() {
    let (rows, plans) = rows();
    let refused = |change: fn(&mut Judged, &mut Plan), expected: EstimateError| {
        let (mut rows, mut plans) = (rows.clone(), plans.clone());
        change(&mut rows[3], &mut plans[3]);
        assert_eq!(estimate(&rows, &plans).unwrap_err(), expected);
        assert_eq!(gain(&rows, &plans, &plans).unwrap_err(), expected);
    };
    refused(|row, _| row.propensity = 0.0, EstimateError::Propensity { row: 3 });
    refused(|row, _| row.propensity = f64::NAN, EstimateError::Propensity { row: 3 });
    refused(|_, plan| plan.propensity = 1.1, EstimateError::Propensity { row: 3 });
    refused(|_, plan| plan.unsupported = -0.1, EstimateError::Propensity { row: 3 });
    refused(|row, _| row.reward.seen = f64::INFINITY, EstimateError::NotANumber { row: 3 });
    refused(|_, plan| plan.cost = f64::NAN, EstimateError::NotANumber { row: 3 });
    refused(|row, _| row.weight = 0.0, EstimateError::NotANumber { row: 3 });
    assert_eq!(estimate(&[], &[]).unwrap_err(), EstimateError::Empty);
    assert_eq!(estimate(&rows, &[]).unwrap_err(), EstimateError::Lengths { rows: 12, plans: 0 });
}

#[test]
fn one_draw_has_no_bounds_and_no_weight_no_sample() {
    let (rows, plans) = rows();
    let one = estimate(&rows[1..2], &plans[1..2]).unwrap().doubly_robust;
    assert_eq!(one.interval(), (f64::NEG_INFINITY, f64::INFINITY));
    let nowhere: Vec<Plan> =
        plans.iter().map(|plan| Plan { propensity: 0.0, unsupported: 1.0, ..*plan }).collect();
    let found = estimate(&rows, &nowhere).unwrap();
    assert!(found.effective_sample_size.abs() < 1e-12 && (found.unsupported - 1.0).abs() < 1e-12);
    assert!(found.snips.value.is_nan() && (found.doubly_robust.value - found.direct.value).abs() < 1e-12);
}
