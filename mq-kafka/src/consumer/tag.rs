//! The tag of a delivery: partition and offset in one number.

use mq_core::driver::Tag;

const OFFSET_BITS: u32 = 48;
const OFFSET: u64 = (1 << OFFSET_BITS) - 1;
/// Partitions beyond this cannot be told apart; Kafka's practical limit for a topic is far below.
pub(super) const MAX_PARTITION: i32 = 0xffff;

/// Names a delivery.
#[allow(clippy::cast_sign_loss)] // Kafka's offsets and partitions of delivered records are not negative
pub(crate) fn of(consumer: u64, epoch: u32, partition: i32, offset: i64) -> Tag {
    Tag { consumer, epoch, seq: (partition as u64) << OFFSET_BITS | (offset as u64 & OFFSET) }
}

/// Partition and offset of a delivery.
#[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation)] // 16 and 48 bits fit
pub(crate) fn place(tag: Tag) -> (i32, i64) {
    ((tag.seq >> OFFSET_BITS) as i32, (tag.seq & OFFSET) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for (partition, offset) in [(0, 0), (7, 1), (MAX_PARTITION, (1 << 48) - 1)] {
            assert_eq!(place(of(3, 4, partition, offset)), (partition, offset));
        }
    }
}
