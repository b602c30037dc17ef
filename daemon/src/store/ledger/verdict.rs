//! How a verdict is kept: a kind and bytes. Two verdicts are the same exactly when both are.

use pointsman_router::feedback::Verdict;
use pointsman_router::normal::NormalForm;

/// The kind and the bytes of a verdict.
pub(super) fn encode(verdict: &Verdict) -> (&'static str, Vec<u8>) {
    match verdict {
        Verdict::Correct(correct) => ("correct", vec![u8::from(*correct)]),
        Verdict::Score(score) => ("score", number(*score)),
        Verdict::Expected(NormalForm::Clear(text)) => ("expected_clear", text.as_bytes().to_vec()),
        Verdict::Expected(NormalForm::Number(value)) => ("expected_number", number(*value)),
        Verdict::Expected(NormalForm::Hashed(hash)) => ("expected_hashed", hash.to_le_bytes().to_vec()),
    }
}

/// The verdict of a kind and bytes; `None` when no daemon wrote them.
pub(super) fn decode(kind: &str, bytes: &[u8]) -> Option<Verdict> {
    let float = |bytes: &[u8]| bytes.try_into().ok().map(f64::from_le_bytes);
    match (kind, bytes) {
        ("correct", [byte @ (0 | 1)]) => Some(Verdict::Correct(*byte == 1)),
        ("score", bytes) => float(bytes).map(Verdict::Score),
        ("expected_clear", bytes) => {
            let text = std::str::from_utf8(bytes).ok()?;
            Some(Verdict::Expected(NormalForm::Clear(text.to_owned())))
        }
        ("expected_number", bytes) => float(bytes).map(|value| Verdict::Expected(NormalForm::Number(value))),
        ("expected_hashed", bytes) => {
            let hash = u128::from_le_bytes(bytes.try_into().ok()?);
            Some(Verdict::Expected(NormalForm::Hashed(hash)))
        }
        _ => None,
    }
}

/// Minus zero is zero: the caller said the same.
fn number(value: f64) -> Vec<u8> {
    (value + 0.0).to_le_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(verdict: Verdict) {
        let (kind, bytes) = encode(&verdict);
        assert_eq!(decode(kind, &bytes), Some(verdict), "{kind}");
    }

    #[test]
    fn a_verdict_comes_back_as_it_went() {
        check(Verdict::Correct(true));
        check(Verdict::Correct(false));
        check(Verdict::Score(0.3));
        check(Verdict::Expected(NormalForm::Clear("ä b".to_owned())));
        check(Verdict::Expected(NormalForm::Number(-1.5e9)));
        check(Verdict::Expected(NormalForm::Hashed(u128::MAX - 5)));
        assert_eq!(encode(&Verdict::Score(-0.0)), encode(&Verdict::Score(0.0)));
        assert_eq!(decode("score", &[1, 2]), None);
        assert_eq!(decode("correct", &[7]), None);
        assert_eq!(decode("guess", &[1]), None);
    }
}
