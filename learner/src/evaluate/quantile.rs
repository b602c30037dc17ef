//! Quantiles of the normal and of Student's distribution, for the bounds of means.
//!
//! The normal one is Wichura's AS 241 (1988), exact to 1e-15 relative; Student's follows from it by the
//! Cornish-Fisher expansion to the fourth order in 1/ν (Abramowitz & Stegun 26.7.5), which is within
//! 1e-3 from four degrees of freedom on, where its callers stop.

/// The least degrees of freedom that [`student`] answers for; fewer are taken as this many.
pub const DEGREES_MIN: f64 = 4.0;

/// z with P(Z ≤ z) = p for a standard normal Z; infinite at 0 and 1, not a number outside.
#[must_use]
pub fn normal(p: f64) -> f64 {
    let from_middle = p - 0.5;
    if from_middle.abs() <= 0.425 {
        let r = 0.180_625 - from_middle * from_middle;
        return from_middle * polynomial(&MIDDLE.0, r) / polynomial(&MIDDLE.1, r);
    }
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let tail = p.min(1.0 - p);
    if tail <= 0.0 {
        return f64::INFINITY.copysign(from_middle);
    }
    let r = (-libm::log(tail)).sqrt();
    let ((above, below), r) = if r <= 5.0 { (&TAIL, r - 1.6) } else { (&FAR, r - 5.0) };
    (polynomial(above, r) / polynomial(below, r)).copysign(from_middle)
}

/// t with P(T ≤ t) = p for Student's T; more degrees of freedom than can be told from infinitely many
/// give the normal quantile.
#[must_use]
pub fn student(p: f64, degrees: f64) -> f64 {
    let z = normal(p);
    let nu = degrees.max(DEGREES_MIN);
    if !nu.is_finite() || !z.is_finite() {
        return z;
    }
    let s = z * z;
    let terms = [
        (s + 1.0) / 4.0,
        polynomial(&[3.0, 16.0, 5.0], s) / 96.0,
        polynomial(&[-15.0, 17.0, 19.0, 3.0], s) / 384.0,
        polynomial(&[-945.0, -1_920.0, 1_482.0, 776.0, 79.0], s) / 92_160.0,
    ];
    z + z * terms.iter().rev().fold(0.0, |sum, term| (sum + term) / nu)
}

/// Coefficients from the constant up.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

/// Numerator and denominator of one range of AS 241.
type Fraction = ([f64; 8], [f64; 8]);

const MIDDLE: Fraction = (
    [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ],
    [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_545,
    ],
);
const TAIL: Fraction = (
    [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        7.745_450_142_783_414e-4,
    ],
    [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ],
);
const FAR: Fraction = (
    [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ],
    [
        1.0,
        0.599_832_206_555_888,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_7e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ],
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `scipy.stats.norm.ppf` and `scipy.stats.t.ppf` (scipy 1.x).
    #[test]
    fn quantiles_agree_with_scipy() {
        for (p, expected) in [
            (0.5, 0.0),
            (0.025, -1.959_963_984_540_054_5),
            (0.1, -1.281_551_565_544_600_4),
            (0.3, -0.524_400_512_708_040_9),
            (0.975, 1.959_963_984_540_054),
            (1e-10, -6.361_340_902_404_056),
            (0.999_999, 4.753_424_308_817_087),
            (1e-30, -11.464_024_688_443_613),
        ] {
            assert!((normal(p) - expected).abs() < 1e-12 * (1.0 + expected.abs()), "{p}: {}", normal(p));
        }
        for (p, degrees, expected) in [
            (0.975, 4.0, 2.776_445_105_197_793_4),
            (0.975, 5.0, 2.570_581_835_636_314_5),
            (0.95, 10.0, 1.812_461_122_811_675_6),
            (0.975, 30.0, 2.042_272_456_301_237_8),
            (0.995, 8.0, 3.355_387_331_333_395),
            (0.025, 12.0, -2.178_812_829_667_229_3),
            (0.975, 1e3, 1.962_339_080_826_408_3),
            (0.975, f64::INFINITY, 1.959_963_984_540_054),
        ] {
            assert!((student(p, degrees) - expected).abs() < 1e-3, "{p} {degrees}: {}", student(p, degrees));
        }
    }

    #[test]
    fn ends_are_infinite_and_nonsense_is_no_number() {
        assert_eq!((normal(0.0), normal(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(normal(-0.1).is_nan() && normal(1.1).is_nan() && normal(f64::NAN).is_nan());
        assert!((student(0.975, 0.0) - student(0.975, DEGREES_MIN)).abs() < 1e-12);
    }
}
