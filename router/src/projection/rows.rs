//! The table of a projection: one row a bucket, laid out for the way in which it is read.
//!
//! A text touches 1,500 rows all over the table, so what a projection costs is how many cache lines they
//! are. Cells are therefore bytes, q·(scale of the row)·(unit of the column), |q| ≤ 127, and a row's
//! weight and scale (upper halves of f32) stand at its head: sixty outputs are one line of 64 bytes.
//! A cell is off by at most 1/254 of the largest of its row, in units; the learner sees that too, since it
//! fits everything that follows on what this code makes.
//!
//! Sums run in the order of the rows, side by side for all columns, so they are the same to the bit whatever
//! the width of a machine's vectors is.

#![expect(clippy::indexing_slicing, reason = "lines of fixed size, rows checked when the table is made")]

use pulp::NullaryFnOnce;
use serde::{Deserialize, Serialize};

/// Bytes of a line of cache.
const LINE: usize = 64;
/// Bytes at the head of a row: its weight and its scale.
const HEAD: usize = 4;
/// The largest cell.
const CELL_MAX: f32 = 127.0;

/// A line of cells, where a cache line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
struct Line([i8; LINE]);

/// The rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Rows {
    units: Vec<f32>,
    lines: Vec<Line>,
}

/// Their form in an artifact.
#[derive(Serialize, Deserialize)]
struct Stored {
    units: Vec<f32>,
    cells: Vec<i8>,
}

impl From<Rows> for Stored {
    fn from(Rows { units, lines }: Rows) -> Self {
        Self { units, cells: lines.iter().flat_map(|line| line.0).collect() }
    }
}

impl TryFrom<Stored> for Rows {
    type Error = &'static str;

    fn try_from(Stored { units, cells }: Stored) -> Result<Self, Self::Error> {
        let (lines, rest) = cells.as_chunks::<LINE>();
        let made = Self { units, lines: lines.iter().map(|line| Line(*line)).collect() };
        let whole = rest.is_empty() && made.lines.len().is_multiple_of(made.lines_a_row());
        whole.then_some(made).ok_or("cells are no whole rows")
    }
}

impl Rows {
    /// The table of these weights, one a row, and these cells, one an output of each row. Cells that are
    /// not there are zero.
    #[must_use]
    pub fn new(weights: &[f32], outputs: usize, cells: &[f32]) -> Self {
        let rows =
            || (0..weights.len()).map(|row| cells.get(row * outputs..(row + 1) * outputs).unwrap_or_default());
        let mut squares = vec![0.0_f64; outputs];
        for row in rows() {
            squares.iter_mut().zip(row).for_each(|(sum, cell)| *sum += f64::from(*cell) * f64::from(*cell));
        }
        let count = weights.len().max(1) as f64;
        let units = squares.iter().map(|sum| unit((sum / count).sqrt())).collect();
        let mut made = Self { units, lines: Vec::new() };
        made.lines = vec![Line([0; LINE]); weights.len() * made.lines_a_row()];
        for (at, (weight, row)) in weights.iter().zip(rows()).enumerate() {
            made.fill(at, *weight, row);
        }
        made
    }

    fn fill(&mut self, at: usize, weight: f32, row: &[f32]) {
        let units = || row.iter().zip(&self.units).map(|(cell, unit)| cell / unit);
        let scale = widened(raised(units().fold(0.0, |most: f32, x| most.max(x.abs())) / CELL_MAX));
        let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
        let cells: Vec<i8> = units().map(|x| nearest(x * inverse)).collect();
        let [a, b] = narrowed(weight).to_le_bytes();
        let [c, d] = narrowed(scale).to_le_bytes();
        let head = [a, b, c, d].map(u8::cast_signed);
        let first = at * self.lines_a_row();
        for (place, cell) in head.into_iter().chain(cells).enumerate() {
            self.lines[first + place / LINE].0[place % LINE] = cell;
        }
    }

    /// Cells of a row.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.units.len()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len() / self.lines_a_row()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether every number is one.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.units.iter().all(|unit| unit.is_finite())
            && (0..self.len()).all(|row| self.weight(row).is_finite() && self.scale(row).is_finite())
    }

    /// The weight of a row.
    #[must_use]
    pub fn weight(&self, row: usize) -> f32 {
        let [a, b, ..] = self.lines[row * self.lines_a_row()].0.map(i8::cast_unsigned);
        widened(u16::from_le_bytes([a, b]))
    }

    fn scale(&self, row: usize) -> f32 {
        let [_, _, a, b, ..] = self.lines[row * self.lines_a_row()].0.map(i8::cast_unsigned);
        widened(u16::from_le_bytes([a, b]))
    }

    /// All cells as they are read, row by row.
    #[must_use]
    pub fn cells(&self) -> Vec<f32> {
        let row = |row: usize| {
            let lines = &self.lines[row * self.lines_a_row()..(row + 1) * self.lines_a_row()];
            let cells = lines.iter().flat_map(|line| line.0).skip(HEAD);
            let scale = self.scale(row);
            cells.zip(&self.units).map(move |(cell, unit)| f32::from(cell) * scale * unit)
        };
        (0..self.len()).flat_map(row).collect()
    }

    /// The sum of rows, each by its factor, of all outputs.
    pub(super) fn sums(&self) -> Sums {
        Sums(vec![[0.0; LINE]; self.lines_a_row()])
    }

    /// Adds rows by their values and one scale for all to the sums.
    pub(super) fn add(&self, part: &[(u32, f32)], scale: f32, sums: &mut Sums) {
        pulp::Arch::new().dispatch(Add { rows: self, part, scale, sums: &mut sums.0 });
    }

    /// What the sums are, in full, of all outputs.
    pub(super) fn totals<'a>(&'a self, sums: &'a Sums) -> impl Iterator<Item = f32> + 'a {
        sums.0.iter().flatten().skip(HEAD).zip(&self.units).map(|(sum, unit)| sum * unit)
    }

    fn lines_a_row(&self) -> usize {
        (HEAD + self.units.len()).div_ceil(LINE)
    }
}

/// Sums of the places of rows, heads among them, which mean nothing.
pub(super) struct Sums(Vec<[f32; LINE]>);

struct Add<'a> {
    rows: &'a Rows,
    part: &'a [(u32, f32)],
    scale: f32,
    sums: &'a mut [[f32; LINE]],
}

impl NullaryFnOnce for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { rows, part, scale, sums } = self;
        let each = sums.len();
        for (place, sums) in sums.iter_mut().enumerate() {
            // A copy: sums that are added up where they lie are stored anew for every row.
            let mut kept = *sums;
            for (row, value) in part {
                let row = *row as usize * each;
                let [_, _, a, b, ..] = rows.lines[row].0.map(i8::cast_unsigned);
                let value = value * scale * widened(u16::from_le_bytes([a, b]));
                let cells = &rows.lines[row + place].0;
                for at in 0..LINE {
                    kept[at] += value * f32::from(cells[at]);
                }
            }
            *sums = kept;
        }
    }
}

/// The f32 whose upper half this is.
#[inline(always)]
#[must_use]
pub fn widened(upper: u16) -> f32 {
    f32::from_bits(u32::from(upper) << 16)
}

/// The upper half of the nearest f32 that has no lower one (ties to even).
#[must_use]
pub fn narrowed(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    u16::try_from(rounded).unwrap_or(0)
}

/// The upper half of the next f32 that is no smaller, of one that is not negative.
fn raised(value: f32) -> u16 {
    u16::try_from(value.to_bits().wrapping_add(0xffff) >> 16).unwrap_or(0)
}

#[expect(clippy::cast_possible_truncation, reason = "held within an i8")]
fn nearest(value: f32) -> i8 {
    value.round().clamp(-CELL_MAX, CELL_MAX) as i8
}

#[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
fn unit(root: f64) -> f32 {
    if root > 0.0 { root as f32 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(i: usize) -> f32 {
        ((i * 7_919) % 1_000) as f32 / 1_000.0 - 0.4
    }

    fn table(outputs: usize) -> (Vec<f32>, Vec<f32>, Rows) {
        let weights: Vec<f32> = (0..50).map(|i| 1.0 + noise(i)).collect();
        let cells: Vec<f32> =
            (0..50 * outputs).map(|i| noise(i) * if i % outputs == 1 { 9.0 } else { 0.1 }).collect();
        let rows = Rows::new(&weights, outputs, &cells);
        (weights, cells, rows)
    }

    #[test]
    fn cells_are_off_by_little_of_the_largest_in_their_row() {
        for outputs in [1, 2, 59, 60, 61, 124, 125] {
            let (weights, cells, rows) = table(outputs);
            assert_eq!((rows.len(), rows.outputs(), rows.is_sound()), (50, outputs, true));
            let back = rows.cells();
            for row in 0..50 {
                assert!((rows.weight(row) - weights[row]).abs() <= weights[row] / 256.0);
                let of =
                    |all: &[f32]| (0..outputs).map(|i| all[row * outputs + i] / rows.units[i]).collect::<Vec<_>>();
                let (wanted, found) = (of(&cells), of(&back));
                let most = wanted.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
                let close = |(w, f): (&f32, &f32)| (w - f).abs() <= most * 1.02 / 254.0;
                assert!(wanted.iter().zip(&found).all(close), "{outputs} {row}");
            }
        }
    }

    #[test]
    fn sums_are_sums_of_cells() {
        for outputs in [1, 60, 61, 130] {
            let (_, _, rows) = table(outputs);
            let part = [(3, 0.5), (49, -1.25), (0, 2.0), (3, 0.5)];
            let mut sums = rows.sums();
            rows.add(&part, 0.75, &mut sums);
            rows.add(&part[..1], 1.0, &mut sums);
            let (found, cells) = (rows.totals(&sums).collect::<Vec<_>>(), rows.cells());
            assert_eq!(found.len(), outputs);
            for (at, found) in found.iter().enumerate() {
                let cell = |(row, value): &(u32, f32)| value * cells[*row as usize * outputs + at];
                let wanted = 0.75 * part.iter().map(cell).sum::<f32>() + cell(&part[0]);
                assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
            }
        }
    }

    #[test]
    fn they_come_back_from_bytes_or_are_refused() {
        let (_, _, rows) = table(61);
        let bytes = postcard::to_allocvec(&rows).unwrap();
        assert_eq!(postcard::from_bytes::<Rows>(&bytes), Ok(rows));
        let cut = Stored { units: vec![1.0; 61], cells: vec![0; 64] };
        assert!(Rows::try_from(cut).is_err());
        assert!(Rows::try_from(Stored { units: vec![1.0], cells: vec![0; 65] }).is_err());
    }

    #[test]
    fn nothing_is_nothing() {
        let rows = Rows::new(&[0.0, 1.0], 2, &[]);
        assert_eq!((rows.cells(), rows.is_sound()), (vec![0.0; 4], true));
    }

    #[test]
    fn narrowing_is_within_an_eighth_bit() {
        for i in 0..2_000 {
            let value = noise(i) * 3.7;
            assert!((widened(narrowed(value)) - value).abs() <= value.abs() / 256.0);
            assert!(widened(raised(value.abs())) >= value.abs());
        }
    }
}
