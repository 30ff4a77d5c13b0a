// Run records in SQLite.
// SPDX-License-Identifier: Apache-2.0
#include "tune/run_store.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "base/file.h"
#include "base/sha256.h"
#include "base/system.h"
#include "kernels/registry.h"
#include "tune/sqlite.h"

namespace hone::tune {
namespace {

// "hone" in ASCII: tells our files from other SQLite databases (PRAGMA application_id).
constexpr std::int64_t kApplication = 0x686F6E65;

// Migration i takes a file of schema i to i + 1. Never edit one that was released: add another.
// runs.seed holds the 64 bits of the seed as a signed number; times are seconds since 1970.
constexpr std::array<const char*, 1> kMigrations = {R"sql(
CREATE TABLE runs (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  verb TEXT NOT NULL, method TEXT NOT NULL, arguments TEXT NOT NULL, seed INTEGER NOT NULL,
  model TEXT NOT NULL, model_hash TEXT NOT NULL, data TEXT NOT NULL, data_hash TEXT NOT NULL,
  versions TEXT NOT NULL, host TEXT NOT NULL, process TEXT NOT NULL,
  status TEXT NOT NULL, note TEXT NOT NULL DEFAULT '',
  started REAL NOT NULL, ended REAL NOT NULL DEFAULT 0);
CREATE TABLE metrics (
  run INTEGER NOT NULL REFERENCES runs (number), name TEXT NOT NULL, step INTEGER NOT NULL,
  value REAL, PRIMARY KEY (run, name, step)) WITHOUT ROWID;
CREATE TABLE attachments (
  run INTEGER NOT NULL REFERENCES runs (number), key TEXT NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (run, key));
CREATE TABLE file_hashes (
  path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, changed INTEGER NOT NULL, hash TEXT NOT NULL)
  WITHOUT ROWID;
)sql"};
constexpr auto kSchema = static_cast<std::int64_t>(kMigrations.size());

constexpr const char* kRunColumns =
    "number, id, verb, method, arguments, seed, model, model_hash, data, data_hash, versions, host,"
    " process, status, note, started, ended";

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "";
  return name.data();
}

// "1234:56789": the process and the tick in which it began, so that a number that another process
// got later is not taken for it. Empty if there is no such process.
std::string process_mark(std::int64_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  std::string text;
  if (!std::getline(file, text)) return "";
  // The second field is a name in parentheses that may hold anything; the 22nd is the tick.
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return "";
  std::size_t at = name_end + 1;
  for (int field = 2; field < 22; ++field) {
    at = text.find_first_not_of(' ', text.find(' ', at));
    if (at == std::string::npos) return "";
  }
  return fmt::format("{}:{}", process, text.substr(at, text.find(' ', at) - at));
}

bool process_lives(const std::string& mark) {
  std::int64_t process = 0;
  const auto read = std::from_chars(mark.data(), mark.data() + mark.size(), process);
  return read.ec == std::errc() && process_mark(process) == mark;
}

std::string versions() {
  utsname system{};
  (void)uname(&system);
  return nlohmann::ordered_json{{"hone", HONE_VERSION},
                                {"compiler", __VERSION__},
                                {"system", fmt::format("{} {}", system.sysname, system.release)},
                                {"processor", cpu_info().name},
                                {"instructions", kernels::kernels().isa}}
      .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string new_id() {
  const std::time_t seconds = std::time(nullptr);
  std::tm day{};
  localtime_r(&seconds, &day);
  std::random_device chance;
  return fmt::format("{:04}-{:02}-{:02}-{:04x}", day.tm_year + 1900, day.tm_mon + 1, day.tm_mday,
                     chance() & 0xFFFFu);
}

Error no_such_run(std::string_view name, const std::string& path) {
  return Error{ErrorCode::kNotFound,
               "there is no such run",
               path,
               fmt::format("'{}'", name),
               "an id or its beginning, its last four digits, last, or last~N",
               "see `hone runs`"};
}

// Everybody sets the mode that is kept in the file; only the first has to change it, for which
// nobody else may have the file open. SQLite's own waiting does not cover that.
Status use_write_ahead_log(const Database& database) {
  Status status;
  for (int attempt = 0; attempt < 50; ++attempt) {
    status = database.execute("PRAGMA journal_mode = WAL");
    if (status.ok() || status.error().code != ErrorCode::kIo) return status;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return status;
}

Status check_schema(std::int64_t schema, const std::string& path) {
  if (schema >= 0 && schema <= kSchema) return {};
  return Error{ErrorCode::kUnsupported,
               "the run records were written by a newer hone",
               path,
               fmt::format("schema {}", schema),
               fmt::format("at most {}", kSchema),
               "use that hone, or another file with --runs FILE"};
}

Status migrate(const Database& database) {
  // In this order: whoever makes the file meanwhile writes all three at once, so what is read last
  // is set if anything before it was.
  const auto tables = database.integer("SELECT count(*) FROM sqlite_master");
  if (!tables) return tables.error();
  auto schema = database.integer("PRAGMA user_version");
  if (!schema) return schema.error();
  const auto application = database.integer("PRAGMA application_id");
  if (!application) return application.error();
  if (*application != kApplication && *tables + *application + *schema != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "this SQLite file is not hone's",
                 database.path(),
                 fmt::format("{} tables and indexes of something else", *tables),
                 "run records, or a new file",
                 "give another file with --runs FILE"};
  }
  HONE_RETURN_IF_ERROR(check_schema(*schema, database.path()));
  HONE_RETURN_IF_ERROR(use_write_ahead_log(database));
  if (*schema == kSchema) return {};
  auto transaction = Transaction::begin(database);
  if (!transaction) return transaction.error();
  schema = database.integer("PRAGMA user_version");  // another process may have been faster
  if (!schema) return schema.error();
  HONE_RETURN_IF_ERROR(check_schema(*schema, database.path()));
  for (auto i = static_cast<std::size_t>(*schema); i < kMigrations.size(); ++i) {
    HONE_RETURN_IF_ERROR(database.execute(kMigrations[i]));
  }
  HONE_RETURN_IF_ERROR(database.execute(
      fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}", kApplication, kSchema)));
  return transaction->commit();
}

Result<std::string> sha256_of_file(const std::string& path) {
  auto file = MappedFile::open(path);
  if (!file) return file.error();
  Sha256 hash;
  constexpr std::size_t kSlice = 8 << 20;  // so that a large model does not become resident
  for (std::size_t at = 0; at < file->bytes().size(); at += kSlice) {
    const std::size_t size = std::min(kSlice, file->bytes().size() - at);
    hash.add(file->bytes().subspan(at, size));
    file->release(at, size);
  }
  return hash.finish();
}

}  // namespace

struct RunStore::State {
  Database database;
  std::optional<Statement> insert_metric;  // the one that runs at every step
  std::string last_run;                    // whose number is known
  std::int64_t last_number = 0;
};

RunStore::RunStore(std::unique_ptr<State> state) : state_(std::move(state)) {}
RunStore::RunStore(RunStore&&) noexcept = default;
RunStore& RunStore::operator=(RunStore&&) noexcept = default;
RunStore::~RunStore() = default;

const std::string& RunStore::path() const { return state_->database.path(); }

namespace {

Result<Database> open_database(const std::string& path, bool create) {
  auto database = Database::open(path, create);
  if (!database) return database.error();
  // Metrics survive a killed process; a power cut may take the last ones (not the file).
  HONE_RETURN_IF_ERROR(database->execute("PRAGMA synchronous = NORMAL"));
  HONE_RETURN_IF_ERROR(migrate(*database));
  return database;
}

}  // namespace

Result<RunStore> RunStore::open(const std::string& path) {
  if (path.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 "there is no place for run records",
                 "",
                 "neither XDG_DATA_HOME nor HOME is set",
                 "",
                 "name a file with --runs FILE"};
  }
  std::error_code trouble;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, trouble);
  if (trouble) {
    return Error{ErrorCode::kIo,
                 "cannot make the folder for run records",
                 folder.string(),
                 trouble.message(),
                 "",
                 "use another file with --runs FILE"};
  }
  auto database = open_database(path, true);
  if (!database) return database.error();
  return RunStore(std::make_unique<State>(State{*std::move(database), std::nullopt, "", 0}));
}

Result<RunStore> RunStore::open_present(const std::string& path) {
  std::error_code trouble;
  if (path.empty() || !std::filesystem::exists(path, trouble)) {
    return Error{ErrorCode::kNotFound,
                 "there are no run records yet",
                 path,
                 "",
                 "",
                 "train something first, or name their file with --runs FILE"};
  }
  auto database = open_database(path, false);
  if (!database) return database.error();
  return RunStore(std::make_unique<State>(State{*std::move(database), std::nullopt, "", 0}));
}

Result<std::string> RunStore::begin(const RunInfo& info) {
  const Database& database = state_->database;
  auto transaction = Transaction::begin(database);
  if (!transaction) return transaction.error();
  auto insert = database.prepare(
      "INSERT OR IGNORE INTO runs (id, verb, method, arguments, seed, model, model_hash, data,"
      " data_hash, versions, host, process, status, started)"
      " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  if (!insert) return insert.error();
  constexpr int kAttempts = 1000;  // a day has 65,536 ids
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::string id = new_id();
    insert->bind(1, id).bind(2, info.verb).bind(3, info.method);
    insert->bind(4, info.arguments_json.empty() ? "{}" : std::string_view(info.arguments_json));
    insert->bind(5, std::bit_cast<std::int64_t>(info.seed));
    insert->bind(6, info.model).bind(7, info.model_hash).bind(8, info.data).bind(9, info.data_hash);
    insert->bind(10, versions()).bind(11, host_name()).bind(12, process_mark(getpid()));
    insert->bind(13, kRunning).bind(14, now());
    HONE_RETURN_IF_ERROR(insert->run());
    if (database.changes() == 0) continue;  // the id is taken
    state_->last_run = id;
    state_->last_number = database.last_row();
    HONE_RETURN_IF_ERROR(transaction->commit());
    return id;
  }
  return Error{ErrorCode::kInternal, "found no free id for a run", path(), "", "", ""};
}

Result<std::int64_t> RunStore::number_of(const std::string& run) {
  if (run == state_->last_run) return state_->last_number;
  auto select = state_->database.prepare("SELECT number FROM runs WHERE id = ?");
  if (!select) return select.error();
  const auto row = select->bind(1, run).step();
  if (!row) return row.error();
  if (!*row) return no_such_run(run, path());
  state_->last_run = run;
  state_->last_number = select->integer(0);
  return state_->last_number;
}

Status RunStore::resume(const std::string& run) {
  const auto number = number_of(run);
  if (!number) return number.error();
  auto update = state_->database.prepare(
      "UPDATE runs SET status = ?, note = '', ended = 0, host = ?, process = ? WHERE number = ?");
  if (!update) return update.error();
  update->bind(1, kRunning).bind(2, host_name()).bind(3, process_mark(getpid())).bind(4, *number);
  return update->run();
}

Status RunStore::log(const std::string& run, std::int64_t step, std::span<const Metric> metrics) {
  const auto number = number_of(run);
  if (!number) return number.error();
  if (!state_->insert_metric) {
    auto insert = state_->database.prepare(
        "INSERT OR REPLACE INTO metrics (run, name, step, value) VALUES (?, ?, ?, ?)");
    if (!insert) return insert.error();
    state_->insert_metric = *std::move(insert);
  }
  auto transaction = Transaction::begin(state_->database);
  if (!transaction) return transaction.error();
  for (const auto& [name, value] : metrics) {
    state_->insert_metric->bind(1, *number).bind(2, name).bind(3, step).bind(4, value);
    HONE_RETURN_IF_ERROR(state_->insert_metric->run());
  }
  return transaction->commit();
}

Status RunStore::finish(const std::string& run, std::string_view status, std::string_view note) {
  if (status != kFinished && status != kInterrupted && status != kFailed) {
    return Error{ErrorCode::kInvalidArgument,
                 "a run cannot end like this",
                 "",
                 fmt::format("'{}'", status),
                 fmt::format("{}, {} or {}", kFinished, kInterrupted, kFailed),
                 ""};
  }
  const auto number = number_of(run);
  if (!number) return number.error();
  auto update =
      state_->database.prepare("UPDATE runs SET status = ?, note = ?, ended = ? WHERE number = ?");
  if (!update) return update.error();
  return update->bind(1, status).bind(2, note).bind(3, now()).bind(4, *number).run();
}

Status RunStore::attach(const std::string& run, std::string_view key, std::string_view value) {
  const auto number = number_of(run);
  if (!number) return number.error();
  // A replaced row keeps its place among the others.
  auto insert = state_->database.prepare(
      "INSERT INTO attachments (run, key, value) VALUES (?, ?, ?)"
      " ON CONFLICT (run, key) DO UPDATE SET value = excluded.value");
  if (!insert) return insert.error();
  return insert->bind(1, *number).bind(2, key).bind(3, value).run();
}

namespace {

// Of one row of kRunColumns.
RunRow read_run(const Statement& row) {
  RunRow run;
  run.id = row.text(1);
  run.info.verb = row.text(2);
  run.info.method = row.text(3);
  run.info.arguments_json = row.text(4);
  run.info.seed = std::bit_cast<std::uint64_t>(row.integer(5));
  run.info.model = row.text(6);
  run.info.model_hash = row.text(7);
  run.info.data = row.text(8);
  run.info.data_hash = row.text(9);
  run.versions_json = row.text(10);
  run.host = row.text(11);
  run.status = row.text(13);
  run.note = row.text(14);
  run.started = row.real(15);
  run.ended = row.real(16);
  run.alive = run.status == kRunning && run.host == host_name() && process_lives(row.text(12));
  return run;
}

// All runs that `statement` gives, with what is attached to them.
Result<std::vector<RunRow>> read_runs(const Database& database, Statement& statement) {
  auto attached =
      database.prepare("SELECT key, value FROM attachments WHERE run = ? ORDER BY rowid");
  if (!attached) return attached.error();
  std::vector<RunRow> runs;
  while (true) {
    const auto row = statement.step();
    if (!row) return row.error();
    if (!*row) return runs;
    runs.push_back(read_run(statement));
    attached->bind(1, statement.integer(0));
    while (true) {
      const auto more = attached->step();
      if (!more) return more.error();
      if (!*more) break;
      runs.back().attached.emplace_back(attached->text(0), attached->text(1));
    }
  }
}

}  // namespace

Result<std::vector<RunRow>> RunStore::list(const RunFilter& filter) {
  auto select = state_->database.prepare(
      fmt::format("SELECT {} FROM runs WHERE (?1 = '' OR verb = ?1) AND (?2 = '' OR status = ?2)"
                  " ORDER BY number DESC LIMIT ?3",
                  kRunColumns));
  if (!select) return select.error();
  select->bind(1, filter.verb).bind(2, filter.status);
  select->bind(3, filter.most > 0 ? filter.most : std::int64_t{-1});
  return read_runs(state_->database, *select);
}

Result<RunRow> RunStore::find(std::string_view name) {
  if (name.empty()) return no_such_run(name, path());
  std::string condition = "id = ?1 OR substr(id, 1, length(?1)) = ?1 OR substr(id, -4) = ?1";
  std::int64_t back = 0;
  const bool last = name == "last" || name.starts_with("last~");
  if (last) {
    condition = "?1 = ?1";
    const std::string_view digits = name.substr(std::min<std::size_t>(name.size(), 5));
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), back);
    const bool whole = read.ec == std::errc() && read.ptr == digits.data() + digits.size();
    if (name != "last" && (!whole || back < 0)) return no_such_run(name, path());
  }
  // Two rows are enough to see that a beginning is not unique; some more to name in the error.
  auto select = state_->database.prepare(
      fmt::format("SELECT {} FROM runs WHERE {} ORDER BY id = ?1 DESC, number DESC LIMIT {} OFFSET"
                  " {}",
                  kRunColumns, condition, last ? 1 : 6, back));
  if (!select) return select.error();
  auto runs = read_runs(state_->database, select->bind(1, name));
  if (!runs) return runs.error();
  if (runs->empty()) return no_such_run(name, path());
  if (runs->size() == 1 || runs->front().id == name) return std::move(runs->front());
  std::string ids;
  for (const RunRow& run : *runs) ids += (ids.empty() ? "" : ", ") + run.id;
  return Error{ErrorCode::kInvalidArgument,
               "several runs have this name",
               path(),
               fmt::format("'{}': {}{}", name, ids, runs->size() == 6 ? ", …" : ""),
               "a name that only one run has",
               "give more of the id"};
}

Result<std::vector<MetricRow>> RunStore::metrics(const std::string& run, std::string_view name) {
  const auto number = number_of(run);
  if (!number) return number.error();
  auto select = state_->database.prepare(
      "SELECT step, value FROM metrics WHERE run = ? AND name = ? ORDER BY step");
  if (!select) return select.error();
  select->bind(1, *number).bind(2, name);
  std::vector<MetricRow> rows;
  while (true) {
    const auto row = select->step();
    if (!row) return row.error();
    if (!*row) return rows;
    rows.push_back({select->integer(0), select->real(1)});
  }
}

Result<std::vector<MetricSummary>> RunStore::summaries(const std::string& run) {
  const auto number = number_of(run);
  if (!number) return number.error();
  // 1.7976931348623157e308 is the largest finite number.
  auto select = state_->database.prepare(
      "SELECT name, count(*), min(step), max(step),"
      " min(CASE WHEN abs(value) <= 1.7976931348623157e308 THEN value END),"
      " max(CASE WHEN abs(value) <= 1.7976931348623157e308 THEN value END)"
      " FROM metrics WHERE run = ? GROUP BY name ORDER BY name");
  if (!select) return select.error();
  auto at =
      state_->database.prepare("SELECT value FROM metrics WHERE run = ? AND name = ? AND step = ?");
  if (!at) return at.error();
  const auto value_at = [&](const std::string& name, std::int64_t step) -> Result<MetricRow> {
    const auto row = at->bind(1, *number).bind(2, name).bind(3, step).step();
    if (!row) return row.error();
    const double value = *row ? at->real(0) : std::numeric_limits<double>::quiet_NaN();
    HONE_RETURN_IF_ERROR(at->run());
    return MetricRow{step, value};
  };
  select->bind(1, *number);
  std::vector<MetricSummary> rows;
  while (true) {
    const auto row = select->step();
    if (!row) return row.error();
    if (!*row) return rows;
    MetricSummary summary;
    summary.name = select->text(0);
    summary.count = select->integer(1);
    summary.least = select->real(4);
    summary.most = select->real(5);
    const auto first = value_at(summary.name, select->integer(2));
    if (!first) return first.error();
    const auto last = value_at(summary.name, select->integer(3));
    if (!last) return last.error();
    summary.first = *first;
    summary.last = *last;
    rows.push_back(std::move(summary));
  }
}

Result<std::string> RunStore::hash_of(const std::string& path) {
  std::error_code trouble;
  const std::filesystem::path whole = std::filesystem::absolute(path, trouble);
  if (std::filesystem::is_directory(whole, trouble)) {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(whole, trouble)) {
      if (entry.is_regular_file(trouble)) names.push_back(entry.path().filename().string());
    }
    std::ranges::sort(names);
    Sha256 all;
    for (const std::string& name : names) {
      const auto hash = hash_of((whole / name).string());
      if (!hash) return hash.error();
      const std::string line = fmt::format("{}  {}\n", *hash, name);
      all.add(std::as_bytes(std::span(line)));
    }
    return all.finish();
  }
  struct stat status {};
  if (::stat(whole.c_str(), &status) != 0) return sha256_of_file(path);  // its error says why
  const std::int64_t changed =
      std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  const Database& database = state_->database;
  auto select =
      database.prepare("SELECT hash FROM file_hashes WHERE path = ? AND bytes = ? AND changed = ?");
  if (!select) return select.error();
  select->bind(1, whole.string()).bind(2, std::int64_t{status.st_size}).bind(3, changed);
  const auto known = select->step();
  if (!known) return known.error();
  if (*known) return select->text(0);
  auto hash = sha256_of_file(whole.string());
  if (!hash) return hash.error();
  // A file that changed a moment ago may change again within the clock's resolution.
  if (now() - static_cast<double>(changed) * 1e-9 < 2) return hash;
  auto insert = database.prepare(
      "INSERT OR REPLACE INTO file_hashes (path, bytes, changed, hash) VALUES (?, ?, ?, ?)");
  if (!insert) return insert.error();
  insert->bind(1, whole.string()).bind(2, std::int64_t{status.st_size}).bind(3, changed);
  HONE_RETURN_IF_ERROR(insert->bind(4, *hash).run());
  return hash;
}

std::string default_runs_path() {
  const char* data = std::getenv("XDG_DATA_HOME");  // NOLINT read before threads that could set it
  if (data != nullptr && *data == '/') return std::string(data) + "/hone/runs.sqlite";
  const char* home = std::getenv("HOME");  // NOLINT as above
  if (home == nullptr || *home == '\0') return "";
  return std::string(home) + "/.local/share/hone/runs.sqlite";
}

}  // namespace hone::tune
