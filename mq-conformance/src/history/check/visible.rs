//! What may be seen at all, and when: phantoms, aborted and uncommitted values, due and expiry times.

use super::{AnomalyKind, Delivery, Fate, Judge, Send};

impl Judge<'_> {
    pub(super) fn visible(&mut self) {
        for d in &self.history.deliveries {
            match self.sends.get(&d.value).copied() {
                None => self.accuse(AnomalyKind::Phantom, d.value, "delivered, but nobody sent it"),
                Some(send) => self.judge_sight(d, send),
            }
        }
    }

    fn judge_sight(&mut self, d: &Delivery, send: &Send) {
        let place = self.history.places.get(d.place);
        let home = d.place == send.place || place.is_some_and(|p| p.dead_letters_of == Some(send.place));
        if !home {
            let text = format!("sent to place {}, delivered from place {}", send.place, d.place);
            self.accuse(AnomalyKind::Phantom, d.value, text);
        }
        let tx = send.transaction.and_then(|t| self.history.transactions.get(t));
        if self.fate(send) == Fate::Never {
            let why = if tx.is_some() { "its transaction was not committed" } else { "its send failed" };
            self.accuse(AnomalyKind::AbortedSeen, d.value, format!("delivered at {:?}, but {why}", d.at));
        } else if let Some(tx) = tx
            && d.at < tx.span.from
        {
            let text = format!("delivered at {:?}, its commit was called at {:?}", d.at, tx.span.from);
            self.accuse(AnomalyKind::PrematureRead, d.value, text);
        }
        if let Some(due) = send.due
            && d.at.saturating_add(self.allowed.skew) < due
        {
            self.accuse(AnomalyKind::Early, d.value, format!("delivered at {:?}, due at {due:?}", d.at));
        }
        // What was dead-lettered because it expired lives on there.
        if let Some(expires) = send.expires.filter(|_| d.place == send.place)
            && d.at > expires.saturating_add(self.allowed.skew)
        {
            self.accuse(
                AnomalyKind::Expired,
                d.value,
                format!("delivered at {:?}, expired at {expires:?}", d.at),
            );
        }
    }
}
