//! What columns of an outbox are usually called: the likelier first.

/// Letters and digits alone: `publishedAt` and `published_at` are one name.
pub(super) fn plain(name: &str) -> String {
    let letters = name.chars().filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// The body. Also those of presets, by which a database is searched.
pub(super) const PAYLOAD: [&str; 15] = [
    "payload",
    "body",
    "eventpayload",
    "eventdata",
    "eventbody",
    "messagebody",
    "messagepayload",
    "data",
    "message",
    "content",
    "event",
    "msg",
    "value",
    "json",
    "serializedevent",
];
pub(super) const ID: [&str; 9] = [
    "id",
    "eventid",
    "messageid",
    "outboxid",
    "uuid",
    "guid",
    "offset",
    "position",
    "sequence",
];
pub(super) const EVENT_ID: [&str; 5] = ["eventid", "messageid", "uuid", "guid", "idempotencykey"];
pub(super) const KEY: [&str; 12] = [
    "partitionkey",
    "messagekey",
    "kafkakey",
    "eventkey",
    "recordkey",
    "key",
    "aggregateid",
    "aggregaterootid",
    "entityid",
    "streamid",
    "subjectid",
    "groupid",
];
pub(super) const DESTINATION: [&str; 14] = [
    "topic",
    "topicname",
    "kafkatopic",
    "destination",
    "destinationtopic",
    "targettopic",
    "routingkey",
    "channel",
    "queue",
    "queuename",
    "stream",
    "subject",
    "exchange",
    "address",
];
/// What events are of: a destination where there is none.
pub(super) const KIND: [&str; 3] = ["aggregatetype", "entitytype", "category"];
pub(super) const TYPE: [&str; 7] = [
    "eventtype",
    "messagetype",
    "eventname",
    "type",
    "kind",
    "recordtype",
    "name",
];
pub(super) const TIME: [&str; 13] = [
    "createdat",
    "occurredat",
    "created",
    "insertedat",
    "createdon",
    "creationtime",
    "createtime",
    "createddate",
    "occurredon",
    "enqueuedat",
    "eventtime",
    "timestamp",
    "time",
];
pub(super) const HEADERS: [&str; 6] = [
    "headers",
    "messageheaders",
    "eventheaders",
    "metadata",
    "meta",
    "attributes",
];
pub(super) const CONTENT_TYPE: [&str; 2] = ["contenttype", "mimetype"];

/// What became of a published row.
const DEEDS: [&str; 15] = [
    "published",
    "dispatched",
    "sent",
    "delivered",
    "relayed",
    "processed",
    "completed",
    "forwarded",
    "emitted",
    "produced",
    "acknowledged",
    "acked",
    "consumed",
    "handled",
    "done",
];
/// Whether it says that a row was published: `sent`, `is_sent`.
pub(super) fn says_done(name: &str) -> bool {
    let name = plain(name);
    DEEDS.contains(&name.strip_prefix("is").unwrap_or(&name))
}

/// Whether it says when a row was published: `sent_at`, `completion_date`.
pub(super) fn says_when_done(name: &str) -> bool {
    let name = plain(name);
    let ends = ["at", "on", "time", "date", "timestamp", ""];
    let mut deeds = DEEDS.into_iter().chain(["completion"]);
    deeds.any(|deed| {
        let rest = name.strip_prefix(deed);
        rest.is_some_and(|rest| ends.contains(&rest))
    })
}

pub(super) const STATUS: [&str; 9] = [
    "status",
    "state",
    "eventstatus",
    "publishstatus",
    "outboxstatus",
    "messagestatus",
    "deliverystatus",
    "processingstatus",
    "statusname",
];
pub(super) const PENDING: [&str; 14] = [
    "pending",
    "new",
    "unpublished",
    "unsent",
    "created",
    "ready",
    "queued",
    "waiting",
    "initial",
    "unprocessed",
    "notpublished",
    "notsent",
    "scheduled",
    "open",
];
pub(super) const DONE: [&str; 13] = [
    "published",
    "sent",
    "dispatched",
    "delivered",
    "relayed",
    "processed",
    "completed",
    "succeeded",
    "success",
    "done",
    "complete",
    "finished",
    "acked",
];
/// What a row may be in while a relay has it.
pub(super) const HELD: [&str; 9] = [
    "processing",
    "inprogress",
    "sending",
    "publishing",
    "delivering",
    "claimed",
    "locked",
    "started",
    "running",
];

/// What tables of events may be called where nothing says outbox.
pub(super) fn hints(table: &str) -> bool {
    let table = plain(table);
    ["event", "message", "publication", "notification", "queue"]
        .iter()
        .any(|word| table.contains(word))
}

pub(super) fn is_outbox(table: &str) -> bool {
    plain(table).contains("outbox")
}

/// Columns that an old relay heeds and outboxd does not.
pub(super) fn is_heeded(name: &str) -> bool {
    let name = plain(name);
    let starts = [
        "locked",
        "claim",
        "lease",
        "nextretry",
        "nextattempt",
        "available",
        "visible",
        "scheduled",
        "processafter",
        "delay",
    ];
    starts.iter().any(|start| name.starts_with(start))
}
