//! Every planted fault, and the scenario that must find it.

/// A planted fault with the scenario that must turn red.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Planted {
    /// The fault.
    pub fault: Fault,
    /// What the backend does wrong.
    pub what: &'static str,
    /// The scenario, as it is listed.
    pub red: &'static str,
}

macro_rules! faults {
    ($($fault:ident $what:literal => $red:literal;)+) => {
        /// What a saboteur does wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Fault { $(#[doc = $what] $fault,)+ }

        /// Every planted fault.
        pub const ALL: &[Planted] = &[$(Planted { fault: Fault::$fault, what: $what, red: $red },)+];
    };
}

faults! {
    LoseSends "confirms one in 50 sends and drops it" => "queue::many_producers_lose_nothing";
    DoubleSends "stores one in 50 sends twice" => "queue::competing_consumers_share_without_loss";
    AcceptMissingQueue "confirms sends to a queue that does not exist" => "queue::a_send_to_a_missing_queue_is_not_found";
    IgnoreDelay "delivers delayed messages at once" => "delay::a_delayed_message_is_never_early";
    IgnoreTtl "keeps expired messages" => "ttl::an_expired_message_is_not_delivered";
    IgnorePriority "treats all priorities alike" => "priority::higher_priorities_come_first";
    ForgetHeaders "forgets headers" => "queue::a_message_arrives_whole";
    ForgetReplyTo "forgets where to reply to" => "queue::a_message_arrives_whole";
    ChangeKeys "changes keys" => "group::keys_go_to_partitions_as_in_kafka";
    MintNewIds "gives each message a new id" => "dedup::a_guarded_handler_does_its_work_once";
    ForgetTime "forgets when a message was made" => "queue::a_plain_message_gets_an_id_and_a_time";
    CutBodies "cuts bodies at 64 KiB" => "queue::any_payload_survives";
    TrimBodies "trims white space off bodies" => "queue::any_payload_survives";
    LoseConfirms "loses one in 20 confirms" => "queue::competing_consumers_share_without_loss";
    HoldConfirms "never answers one in 20 sends" => "window::what_was_confirmed_leaves_the_window";
    SwapConfirms "gives the answer of one publish to the next one" => "routing::mandatory_makes_an_unroutable_message_an_error";
    ConfirmTooEarly "confirms first and stores later" => "reconnect::confirmed_messages_survive_a_restart";
    RejectWhatIsStored "refuses one in 20 sends and stores it all the same" => "queue::competing_consumers_share_without_loss";
    RouteTwice "routes one copy for each of two bindings" => "routing::one_copy_for_a_queue_however_many_bindings_match";
    IgnoreMandatory "accepts mandatory messages that match no queue" => "routing::mandatory_makes_an_unroutable_message_an_error";
    LieAboutRouting "says that everything was routed" => "routing::what_matches_no_queue_is_told";
    IgnoreCase "compares routing keys without case" => "routing::direct_routes_by_the_exact_key";
    StarIsHash "takes `*` for `#`" => "routing::topic_star_is_exactly_one_word";
    AllIsAny "takes a headers binding of all for one of any" => "routing::headers_all_and_any";
    IgnoreUnbind "keeps what was unbound" => "routing::an_unbound_queue_gets_nothing_more";
    ForgetAlternate "forgets alternate exchanges" => "routing::an_alternate_exchange_gets_what_matches_nothing";
    AckEarly "acknowledges what it hands out" => "settlement::what_a_closed_consumer_held_comes_again_uncounted";
    LoseAcks "forgets acks" => "queue::a_message_is_gone_after_its_ack";
    LoseAcksOnFlush "confirms acks that it never sent" => "settlement::a_flushed_ack_holds_through_a_cut";
    RequeueDrops "drops what is given back" => "settlement::what_is_requeued_comes_again_uncounted";
    RetryDrops "drops what is to be retried" => "attempts::max_attempts_is_exact";
    RetryInProcess "keeps retries in the memory of the process" => "retry::a_retry_outlives_its_consumer";
    RetryAtOnce "retries without a pause" => "retry::a_retry_waits_for_its_pause";
    CountTwice "counts each failure twice" => "attempts::max_attempts_is_exact";
    NeverCount "never counts a failure" => "attempts::max_attempts_is_exact";
    CountRequeues "counts a requeue as a failure" => "attempts::a_requeue_is_no_attempt";
    NeverBury "lets a message kill consumers for ever" => "attempts::too_many_deaths_end_in_the_dead_letter_queue";
    HandOutOfOrder "swaps two neighbours" => "order::a_queue_keeps_the_order_it_promises";
    RepeatDeliveries "delivers one in 20 twice" => "queue::competing_consumers_share_without_loss";
    StealDeliveries "never hands out one in 20" => "queue::competing_consumers_share_without_loss";
    IgnorePrefetch "hands out more than it is asked for" => "prefetch::a_consumer_holds_no_more_than_its_prefetch";
    LeakCredit "stops after 20 deliveries" => "prefetch::credit_comes_back_with_every_settlement";
    IgnoreResume "stays paused" => "prefetch::a_paused_consumer_gets_nothing";
    HangOnConsumerClose "never ends the close of a consumer" => "close::closing_a_consumer_flushes_its_acks";
    HangOnClose "never ends the close of a connection" => "close::a_second_close_is_no_error";
    CommitPastHoles "commits past a hole" => "group::no_commit_passes_a_hole";
    IgnoreSeek "stays where it is when it should seek" => "seek::back_to_the_start_replays_everything";
    BroadcastFromTheStart "broadcasts from the start" => "broadcast::it_starts_at_the_latest";
    BrowseConsumes "consumes what is browsed" => "queue::browse_consumes_nothing";
    ShareExclusive "lets two exclusive consumers in" => "queue::an_exclusive_consumer_is_alone";
    LieAboutPositions "tells wrong positions" => "group::positions_rise_and_are_told";
    PurgeNothing "purges nothing" => "dlq::dead_letters_can_be_purged";
    PurgeTooMuch "purges what is held, too" => "queue::purge_removes_what_is_ready_alone";
    AcceptConflicts "accepts conflicting declarations" => "topology::a_conflicting_queue_is_named";
    EverythingExists "says that everything exists" => "topology::use_existing_makes_nothing";
    GuessDepth "guesses depths" => "queue::depth_is_never_guessed";
    IgnoreDelete "keeps deleted queues" => "queue::a_deleted_queue_is_gone_for_everyone";
    KeepExclusiveQueues "keeps exclusive queues" => "topology::an_exclusive_queue_goes_with_its_connection";
    ForgetQueueTtl "forgets the expiry of a queue" => "ttl::a_queues_ttl_counts_for_messages_without_one";
    IgnoreBounds "ignores the bounds of queues" => "bounded::a_full_queue_refuses";
    NoLag "says that no group lags behind" => "group::lag_is_what_is_not_acknowledged";
    LeakTransactions "shows a transaction before its commit" => "transaction::nothing_is_visible_before_the_commit";
    TearTransactions "leaves one in three messages out of a transaction" => "transaction::everything_is_visible_after_the_commit";
    CommitRollbacks "commits what is rolled back" => "transaction::nothing_is_ever_visible_after_a_rollback";
    CommitDropped "commits what is dropped" => "transaction::a_drop_is_a_rollback";
    ForgetTransactionAcks "forgets the acks of a transaction" => "transaction::acks_are_part_of_it";
    ShowHalves "shows half messages before their verdict" => "half::a_half_message_is_invisible_until_its_commit";
    CommitRolledBackHalves "delivers half messages that are rolled back" => "half::a_rolled_back_half_message_is_never_seen";
    NeverAsk "never asks about half messages" => "half::without_a_verdict_the_checker_is_asked";
    ForgetHalves "forgets half messages" => "half::a_half_message_arrives_whole";
    HideLosses "does not tell that the connection is lost" => "reconnect::events_tell_of_loss_and_return";
    NeverConnectAgain "connects once" => "reconnect::a_send_waits_out_a_cut";
    RefuseMore "refuses what it could do" => "priority::higher_priorities_come_first";
    HideCosts "emulates and does not tell the cost" => "capability::emulations_tell_cost_and_caveat";
}
