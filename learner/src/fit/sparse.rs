//! A tall sparse matrix of weighted buckets, laid out so that products with narrow blocks stay in the
//! cache.
//!
//! A block has one row of cells for each of tens of thousands of columns, and a text touches 1,500 of
//! them: row by row, every product would fetch most of a block from memory again. So rows are kept in
//! bands and columns in tiles; within a band all entries of one tile lie together, and the part of the
//! block that they touch is fetched once for all rows of the band. Values are kept as the upper halves
//! of f32, an error of 2⁻⁸ at most, four bytes an entry with the column.
//!
//! Products are shared out among `PARTS` threads so that no cell is summed by two, each in the order
//! of rows and columns: the bits do not depend on the machine.

#![expect(clippy::indexing_slicing, reason = "tables of bands, tiles and rows whose sizes are made here")]

use pointsman_router::projection::{narrowed, widened};

/// A sparse row: columns, ascending, and values.
pub type SparseRow = Vec<(u32, f32)>;

/// Threads that share the work; the same on every machine.
pub(crate) const PARTS: usize = 2;
/// Blocks of a multiple of so many cells in a row are added fastest.
pub(super) const LANES: usize = 8;

/// Rows of a band.
const BAND: usize = 512;
/// Columns of a tile.
const TILE: usize = 1 << 10;

/// The matrix.
#[derive(Debug)]
pub struct Sparse {
    height: usize,
    width: usize,
    bands: Vec<Band>,
}

/// Some rows.
#[derive(Debug)]
struct Band {
    rows: usize,
    /// Where the entries of a row in a tile begin, by tile and then by row, and the end of all.
    begins: Vec<u32>,
    /// The column within its tile, and the upper half of the value.
    entries: Vec<(u16, u16)>,
}

impl Sparse {
    /// The matrix whose rows these are.
    #[must_use]
    pub fn new((height, width): (usize, usize), row: &(impl Fn(usize, &mut SparseRow) + Sync)) -> Self {
        let bands = height.div_ceil(BAND);
        let of = |band: usize| Band::new((band * BAND..height.min((band + 1) * BAND)).collect(), width, row);
        let parts = side_by_side(|first| (first..bands).step_by(PARTS).map(of).collect::<Vec<_>>());
        let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
        let bands = (0..bands).filter_map(|band| parts[band % PARTS].next()).collect();
        Self { height, width, bands }
    }

    /// The same, of few rows and on one thread.
    #[must_use]
    pub fn alone((height, width): (usize, usize), row: &impl Fn(usize, &mut SparseRow)) -> Self {
        Self { height, width, bands: vec![Band::new((0..height).collect(), width, row)] }
    }

    /// X·block over all rows on one thread.
    #[must_use]
    pub fn times_alone(&self, block: &[f32], cells: usize) -> Vec<f32> {
        let all = |band: &Band| Picked { first: 0, end: band.rows, step: 1, place: 0 };
        self.bands.iter().flat_map(|band| band.times(block, cells, &all(band))).collect()
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// X·block over the first `rows` rows, one in `step` of them: a row of `cells` each.
    #[must_use]
    pub fn times(&self, block: &[f32], cells: usize, (rows, step): (usize, usize)) -> Vec<f32> {
        let bands = rows.min(self.height).div_ceil(BAND);
        let of = |(at, band): (usize, &Band)| band.times(block, cells, &Picked::of(at, (rows, step)));
        let half = bands.div_ceil(PARTS).max(1);
        let parts = side_by_side(|first| {
            let mine = self.bands.iter().take(bands).enumerate().skip(first * half).take(half);
            mine.flat_map(of).collect::<Vec<f32>>()
        });
        parts.concat()
    }

    /// Xᵀ·images over the same rows.
    #[must_use]
    pub fn transposed_times(&self, images: &[f32], cells: usize, (rows, step): (usize, usize)) -> Vec<f32> {
        let mut block = vec![0.0_f32; self.width * cells];
        let bands = rows.min(self.height).div_ceil(BAND);
        let mut shares: Vec<Vec<(usize, &mut [f32])>> = (0..PARTS).map(|_| Vec::new()).collect();
        for (tile, part) in block.chunks_mut(TILE * cells.max(1)).enumerate() {
            shares[tile % PARTS].push((tile, part));
        }
        let fill = |share: Vec<(usize, &mut [f32])>| {
            for (tile, part) in share {
                for (at, band) in self.bands.iter().take(bands).enumerate() {
                    band.add_transposed((tile, part), images, cells, &Picked::of(at, (rows, step)));
                }
            }
        };
        std::thread::scope(|scope| shares.into_iter().for_each(|share| drop(scope.spawn(|| fill(share)))));
        block
    }
}

/// The rows of a band that are read, and the place of their first among all that are.
struct Picked {
    first: usize,
    end: usize,
    step: usize,
    place: usize,
}

impl Picked {
    fn of(band: usize, (rows, step): (usize, usize)) -> Self {
        let place = (band * BAND).div_ceil(step);
        Self { first: place * step - band * BAND, end: rows.saturating_sub(band * BAND), step, place }
    }

    fn rows(&self, band: &Band) -> impl Iterator<Item = usize> {
        (self.first..self.end.min(band.rows)).step_by(self.step)
    }
}

impl Band {
    fn new(rows: Vec<usize>, width: usize, row: &impl Fn(usize, &mut SparseRow)) -> Self {
        let tiles = width.div_ceil(TILE);
        let mut made = SparseRow::new();
        let mut by_tile: Vec<Vec<(u16, u16)>> = vec![Vec::new(); tiles];
        let mut counts = vec![0_u32; tiles * rows.len() + 1];
        for (at, of) in rows.iter().enumerate() {
            row(*of, &mut made);
            for (column, value) in &made {
                let (tile, within) = (*column as usize / TILE, *column as usize % TILE);
                by_tile[tile].push((u16::try_from(within).unwrap_or(0), narrowed(*value)));
                counts[tile * rows.len() + at + 1] += 1;
            }
        }
        let mut begin = 0;
        for count in &mut counts {
            begin += *count;
            *count = begin;
        }
        Self { rows: rows.len(), begins: counts, entries: by_tile.concat() }
    }

    fn entries(&self, tile: usize, row: usize) -> &[(u16, u16)] {
        let at = tile * self.rows + row;
        &self.entries[self.begins[at] as usize..self.begins[at + 1] as usize]
    }

    fn times(&self, block: &[f32], cells: usize, picked: &Picked) -> Vec<f32> {
        let mut images = vec![0.0_f32; picked.rows(self).count() * cells];
        for (tile, part) in block.chunks(TILE * cells.max(1)).enumerate() {
            for (row, image) in picked.rows(self).zip(images.chunks_exact_mut(cells)) {
                for (column, value) in self.entries(tile, row) {
                    let from = usize::from(*column) * cells;
                    add_scaled(image, &part[from..from + cells], widened(*value));
                }
            }
        }
        images
    }

    fn add_transposed(&self, (tile, part): (usize, &mut [f32]), images: &[f32], cells: usize, picked: &Picked) {
        for (row, image) in picked.rows(self).zip(images[picked.place * cells..].chunks_exact(cells)) {
            for (column, value) in self.entries(tile, row) {
                let from = usize::from(*column) * cells;
                add_scaled(&mut part[from..from + cells], image, widened(*value));
            }
        }
    }
}

/// Adds so many times the cells.
#[inline(always)]
pub(super) fn add_scaled(sums: &mut [f32], cells: &[f32], value: f32) {
    // By places: an iterator over both is not always taken apart, and this is where time goes.
    let cells = &cells[..sums.len()];
    for at in 0..sums.len() {
        sums[at] += value * cells[at];
    }
}

/// Runs the parts side by side; what they made, in their order.
pub(crate) fn side_by_side<T: Send>(part: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let part = &part;
        let running: Vec<_> = (1..PARTS).map(|first| scope.spawn(move || part(first))).collect();
        let mut done = vec![part(0)];
        for thread in running {
            match thread.join() {
                Ok(made) => done.push(made),
                // A part that panicked has nothing to add: its panic goes on.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(row: usize, column: usize) -> f32 {
        // Numbers that an upper half holds exactly.
        let seed = (row * 31 + column * 17) % 97;
        if seed < 12 { seed as f32 / 8.0 - 0.5 } else { 0.0 }
    }

    fn check((height, width): (usize, usize), (rows, step): (usize, usize)) {
        let row = |at: usize, row: &mut SparseRow| {
            row.clear();
            row.extend(
                (0..width).filter(|c| value(at, *c) != 0.0).map(|c| (u32::try_from(c).unwrap(), value(at, c))),
            );
        };
        let matrix = Sparse::new((height, width), &row);
        assert_eq!((matrix.height(), matrix.width()), (height, width));
        let block: Vec<f32> = (0..width * LANES).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
        let images = matrix.times(&block, LANES, (rows, step));
        let picked: Vec<usize> = (0..rows.min(height)).step_by(step).collect();
        assert_eq!(images.len(), picked.len() * LANES);
        for (place, at) in picked.iter().enumerate().step_by(37) {
            for lane in [0, 3] {
                let wanted: f32 = (0..width).map(|c| value(*at, c) * block[c * LANES + lane]).sum();
                assert!((images[place * LANES + lane] - wanted).abs() < 1e-2, "{at} {lane}");
            }
        }
        if rows >= height && step == 1 {
            assert_eq!(Sparse::alone((height, width), &row).times_alone(&block, LANES), images);
        }
        let back = matrix.transposed_times(&images, LANES, (rows, step));
        for column in (0..width).step_by(71) {
            let wanted: f32 =
                picked.iter().enumerate().map(|(p, at)| value(*at, column) * images[p * LANES + 1]).sum();
            let found = back[column * LANES + 1];
            assert!((found - wanted).abs() < 1e-3 * wanted.abs().max(100.0), "{column}: {found} {wanted}");
        }
    }

    #[test]
    fn products_are_what_they_are_called() {
        check((1_300, 2_500), (1_300, 1));
        check((1_300, 2_500), (700, 1));
        check((1_300, 2_500), (1_300, 7));
        check((1_100, 40), (1_024, 513));
        check((3, 5), (9, 1));
        check((0, 5), (0, 1));
    }
}
