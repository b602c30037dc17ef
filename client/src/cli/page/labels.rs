//! Names beside points, so that none covers another.
//!
//! Greedy: each label goes to the nearest free place around its point. One that finds none is left out; the table on
//! the page names every point.

use super::plot::TEXT;

/// A rectangle in pixels: left, top, right, bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rect(pub(super) i32, pub(super) i32, pub(super) i32, pub(super) i32);

impl Rect {
    /// The square around a point.
    pub(super) fn around((x, y): (i32, i32), radius: i32) -> Self {
        Self(x - radius, y - radius, x + radius, y + radius)
    }

    fn meets(self, other: Self) -> bool {
        self.0 < other.2 && other.0 < self.2 && self.1 < other.3 && other.1 < self.3
    }

    fn holds(self, other: Self) -> bool {
        self.0 <= other.0 && self.1 <= other.1 && self.2 >= other.2 && self.3 >= other.3
    }
}

/// What is taken already.
#[derive(Debug)]
pub(super) struct Labels {
    bounds: Rect,
    taken: Vec<Rect>,
}

/// Distances from the point that are tried, in pixels. Beyond the first, a line leads to the label.
const DISTANCES: [i32; 4] = [10, 22, 36, 52];

/// A place for a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Left end of the text, in the middle of its height.
    pub(super) left: (i32, i32),
    /// Where a line from the point to the label ends. Absent: the label is beside its point.
    pub(super) leader: Option<(i32, i32)>,
}

impl Labels {
    /// Labels within these bounds that keep clear of these rectangles.
    pub(super) fn new(bounds: Rect, taken: Vec<Rect>) -> Self {
        Self { bounds, taken }
    }

    /// A free place beside the point.
    pub(super) fn place(&mut self, (x, y): (i32, i32), text: &str) -> Option<Place> {
        let (width, half) = (width(text), TEXT / 2 + 2);
        for distance in DISTANCES {
            let near = distance * 7 / 10;
            let middles = [
                (x + distance + width / 2, y),
                (x - distance - width / 2, y),
                (x, y - distance - half),
                (x, y + distance + half),
                (x + near + width / 2, y - near - half),
                (x + near + width / 2, y + near + half),
                (x - near - width / 2, y - near - half),
                (x - near - width / 2, y + near + half),
            ];
            for middle in middles {
                let left = (middle.0 - width / 2, middle.1);
                let rect = Rect(left.0 - 2, left.1 - half, left.0 + width + 2, left.1 + half);
                if self.bounds.holds(rect) && !self.taken.iter().any(|taken| taken.meets(rect)) {
                    self.taken.push(rect);
                    let nearest = (x.clamp(rect.0, rect.2), y.clamp(rect.1, rect.3));
                    let leader = (distance > 10).then_some(nearest);
                    return Some(Place { left, leader });
                }
            }
        }
        None
    }
}

/// About how wide a text is, in pixels; no font is at hand to measure.
pub(super) fn width(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX / TEXT).saturating_mul(TEXT * 58) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_clear_of_points_and_of_each_other() {
        let bounds = Rect(0, 0, 600, 300);
        let points = [(300, 150), (305, 152), (310, 148), (590, 150), (300, 290)];
        let taken: Vec<_> = points.iter().map(|point| Rect::around(*point, 5)).collect();
        let mut labels = Labels::new(bounds, taken);
        for point in points {
            let before = labels.taken.clone();
            assert!(labels.place(point, "some-model").is_some(), "{point:?}");
            let rect = *labels.taken.last().expect("was placed");
            assert!(bounds.holds(rect), "{rect:?}");
            assert!(!before.iter().any(|taken| taken.meets(rect)), "{rect:?} covers another");
        }
    }

    #[test]
    fn without_room_there_is_no_label() {
        let mut labels = Labels::new(Rect(0, 0, 40, 300), Vec::new());
        assert_eq!(labels.place((20, 150), "a-name-that-is-too-long"), None);
    }
}
