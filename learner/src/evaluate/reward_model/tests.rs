#![expect(clippy::cast_possible_truncation, reason = "a test: the numbers are small")]

use pointsman_router::clock::Draw;

use super::*;

/// Forty rows made by rule: features, folds, labels.
fn rows() -> (Vec<f32>, Vec<u8>, Vec<Label>) {
    let mut features = Vec::new();
    let mut labels = Vec::new();
    for i in 0..40_u32 {
        let x = f64::from(i);
        let numbers = [x.sin(), (1.7 * x).cos() * 3.0, f64::from(i % 5) / 5.0];
        features.extend(numbers.map(|number| number as f32));
        let model = (i * 7 % 2) as u16;
        let score = (0.5 + 0.3 * x.sin() + 0.1 * f64::from(model)) as f32;
        labels.push(Label { row: i, model, score, weight: 1.0 + (i % 3) as f32 });
    }
    (features, (0..40).map(|i| i % 3).collect(), labels)
}

/// The figures are those of `numpy.linalg.solve` on the same equations.
#[test]
fn regressions_agree_with_numpy() {
    let (features, folds, labels) = rows();
    let design = Design { features: &features, dims: 3, folds: &folds };
    let fitted = RewardModel::fit(&design, 2, &labels, &Ridge { labels: vec![2.0], level_labels: 5.0 }).unwrap();
    let expected = [
        [0.513_960_991_078_329_6, 0.580_749_358_191_808_8],
        [0.745_665_687_069_090_3, 0.810_997_287_832_029_1],
        [0.739_734_023_080_326_3, 0.843_003_060_464_354_7],
    ];
    let all = fitted.predict_all(&design);
    for (row, expected) in expected.iter().enumerate() {
        let mut scores = [0.0; 2];
        fitted.predict(folds[row], &features[3 * row..3 * row + 3], &mut scores);
        assert!(scores.iter().zip(expected).all(|(s, e)| (s - e).abs() < 1e-7), "{row}: {scores:?}");
        assert_eq!(all[2 * row..2 * row + 2], scores);
    }
}

#[test]
fn a_row_is_never_predicted_from_its_own_fold() {
    let (features, folds, labels) = rows();
    let design = Design { features: &features, dims: 3, folds: &folds };
    let one = RewardModel::fit(&design, 2, &labels, &Ridge::default()).unwrap();
    let changed: Vec<Label> = labels
        .iter()
        .map(|label| Label { score: if folds[label.row as usize] == 1 { 0.0 } else { label.score }, ..*label })
        .collect();
    let other = RewardModel::fit(&design, 2, &changed, &Ridge::default()).unwrap();
    let predict = |model: &RewardModel, row: usize| {
        let mut scores = [0.0; 2];
        model.predict(folds[row], &features[3 * row..3 * row + 3], &mut scores);
        scores
    };
    for (row, fold) in folds.iter().enumerate() {
        let is_alike = predict(&one, row).iter().zip(predict(&other, row)).all(|(a, b)| (a - b).abs() < 1e-9);
        assert_eq!(is_alike, *fold == 1, "row {row}");
    }
}

#[test]
fn a_linear_world_is_found_and_an_unseen_model_is_average() {
    let mut draw = Draw::from_seed(1);
    let (n, dims) = (4_000, 6);
    let features: Vec<f32> = (0..n * dims).map(|_| draw.uniform() as f32 - 0.5).collect();
    let folds: Vec<u8> = (0..n as u64).map(|i| fold_of(i, 7, 5)).collect();
    let truth = |row: usize, model: u16| {
        0.5 + 0.1 * f64::from(model) + 0.3 * f64::from(features[row * dims + usize::from(model)])
    };
    let labels: Vec<Label> = (0..n as u32)
        .map(|row| {
            let model = (draw.next_u64() % 2) as u16;
            let score = (truth(row as usize, model) + 0.1 * (draw.uniform() - 0.5)) as f32;
            Label { row, model, score, weight: 1.0 }
        })
        .collect();
    let design = Design { features: &features, dims, folds: &folds };
    let fitted =
        RewardModel::fit(&design, 3, &labels, &Ridge { labels: vec![5.0, 500.0], level_labels: 5.0 }).unwrap();
    let mut scores = [0.0; 3];
    for row in 0..n {
        fitted.predict(folds[row], &features[row * dims..(row + 1) * dims], &mut scores);
        assert!((scores[0] - truth(row, 0)).abs() < 0.03 && (scores[1] - truth(row, 1)).abs() < 0.03);
        assert!((scores[2] - 0.55).abs() < 0.02, "{scores:?}");
    }
}

#[test]
fn folds_are_even_and_follow_the_key() {
    let mut counts = [0; 5];
    (0..10_000_u64).for_each(|key| counts[usize::from(fold_of(key, 3, 5))] += 1);
    assert!(counts.iter().all(|count| (1_850..2_150).contains(count)), "{counts:?}");
    assert_eq!(fold_of(9, 1, 5), fold_of(9, 1, 5));
    assert_eq!(fold_of(9, 1, 0), 0);
}

#[test]
fn a_set_is_worth_its_vote() {
    let scores = [0.7, 0.6, 0.65];
    assert!((set_reward(&scores, &[1], 10.0) - 0.6).abs() < 1e-12);
    let three = set_reward(&scores, &[0, 1, 2], 10.0);
    assert!((three - predicted_accuracy(&scores, 10.0)).abs() < 1e-12 && three > 0.7);
    assert!(set_reward(&scores, &[7], 10.0).abs() < 1e-12);
}

#[test]
fn nothing_to_fit_on_is_said() {
    let (features, folds, labels) = rows();
    let design = Design { features: &features, dims: 3, folds: &folds };
    let fit = |design: &Design<'_>, models, labels: &[Label]| {
        RewardModel::fit(design, models, labels, &Ridge::default()).unwrap_err()
    };
    assert_eq!(fit(&design, 2, &[]), FitError::NoLabels);
    assert_eq!(fit(&design, 1, &labels), FitError::Label { label: 1 });
    let nan = Label { score: f32::NAN, ..labels[0] };
    assert_eq!(fit(&design, 2, &[labels[0], nan]), FitError::Label { label: 1 });
    let narrow = Design { dims: 2, ..design };
    assert_eq!(fit(&narrow, 2, &labels), FitError::Shape { numbers: 120, rows: 40, dims: 2 });
    // Features that never change and a model with one label are no fault.
    let flat = vec![1.0; 120];
    let design = Design { features: &flat, ..design };
    let fitted = RewardModel::fit(&design, 2, &labels[..1], &Ridge::default()).unwrap();
    assert!(fitted.predict_all(&design).iter().all(|score| (0.0..=1.0).contains(score)));
}
