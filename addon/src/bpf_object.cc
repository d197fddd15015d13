// SPDX-License-Identifier: Apache-2.0
/**
 * Loads a BPF object: its maps made and pinned, or taken from where they are pinned; the values of
 * its constants set; its programs verified. Also opens and makes pins.
 *
 * With `shared` and no directory it takes those maps of a loaded object, makes the others for
 * itself and pins nothing. A map that is already pinned wins: it keeps its size and what is in it,
 * and only its shape (type, key, value, flags) must fit. The check is made here, before libbpf's,
 * so that the error names the map and says what differs. When the load fails the pins that it made
 * are taken away. The check of the programs, which takes the time, may be shared with a second
 * thread.
 */
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <exception>
#include <map>
#include <memory>
#include <set>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "bpf_fd.h"
#include "failure.h"
#include "libbpf_log.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

struct LoadRequest {
  std::string path;
  // "": nothing is pinned
  std::string pinDir;
  std::map<std::string, int> shared;
  // empty: all
  std::set<std::string> programs;
  // of those: checked by a second thread
  std::set<std::string> apart;
  std::map<std::string, uint32_t> maxEntries;
  std::map<std::string, Bytes> rodata;
};

struct ObjectCloser {
  void operator()(bpf_object* object) const { bpf_object__close(object); }
};
using ObjectPointer = std::unique_ptr<bpf_object, ObjectCloser>;

LoadRequest readRequest(const Napi::CallbackInfo& info) {
  LoadRequest request;
  request.path = toPath(info[0], "path");
  const Napi::Object options = toObject(info[1], "options");
  if (const auto value = optionalProperty(options, "pinDir")) {
    request.pinDir = toPath(*value, "options.pinDir");
    if (request.pinDir.front() != '/') failRange("options.pinDir must be an absolute path");
  }
  if (const auto value = optionalProperty(options, "shared")) {
    for (const auto& [name, fd] : toEntries(*value, "options.shared")) {
      request.shared[name] = toFd(fd, ("options.shared." + name).c_str());
    }
  }
  for (const auto& [property, names] :
       {std::pair{"programs", &request.programs}, std::pair{"apart", &request.apart}}) {
    if (const auto value = optionalProperty(options, property)) {
      for (const auto& each : toEntries(*value, property)) names->insert(each.first);
    }
  }
  if (const auto value = optionalProperty(options, "maxEntries")) {
    for (const auto& [name, entries] : toEntries(*value, "options.maxEntries")) {
      request.maxEntries[name] = toUint32(entries, ("options.maxEntries." + name).c_str(), 1);
    }
  }
  if (const auto value = optionalProperty(options, "rodata")) {
    for (const auto& [name, bytes] : toEntries(*value, "options.rodata")) {
      request.rodata[name] = toBytes(bytes, ("options.rodata." + name).c_str());
    }
  }
  return request;
}

/** Where a named constant lies in one of the .rodata sections. */
struct Variable {
  bpf_map* map;
  uint32_t offset;
  uint32_t size;
};

std::map<std::string, Variable> rodataVariables(const bpf_object* object) {
  std::map<std::string, Variable> variables;
  const btf* types = bpf_object__btf(object);
  if (types == nullptr) return variables;
  for (uint32_t id = 1; id < btf__type_cnt(types); id++) {
    const btf_type* section = btf__type_by_id(types, id);
    if (!btf_is_datasec(section)) continue;
    const char* name = btf__name_by_offset(types, section->name_off);
    if (name == nullptr || strncmp(name, ".rodata", 7) != 0) continue;
    bpf_map* map = bpf_object__find_map_by_name(object, name);
    if (map == nullptr) continue;
    const btf_var_secinfo* member = btf_var_secinfos(section);
    for (uint16_t i = 0; i < btf_vlen(section); i++, member++) {
      const btf_type* variable = btf__type_by_id(types, member->type);
      const char* variableName = btf__name_by_offset(types, variable->name_off);
      if (variableName != nullptr) {
        variables[variableName] = Variable{map, member->offset, member->size};
      }
    }
  }
  return variables;
}

void setRodata(const bpf_object* object, const LoadRequest& request) {
  if (request.rodata.empty()) return;
  const auto variables = rodataVariables(object);
  for (const auto& [name, bytes] : request.rodata) {
    const auto found = variables.find(name);
    if (found == variables.end()) failRange("the object has no constant named \"" + name + "\"");
    const Variable& variable = found->second;
    if (bytes.size() != variable.size) {
      failRange("options.rodata." + name + " must be " + std::to_string(variable.size) +
                " bytes long, not " + std::to_string(bytes.size()));
    }
    size_t sectionBytes = 0;
    // libbpf hands the image out as const, and its skeletons write to it all the same
    auto* image = const_cast<uint8_t*>(
        static_cast<const uint8_t*>(bpf_map__initial_value(variable.map, &sectionBytes)));
    if (image == nullptr || size_t{variable.offset} + variable.size > sectionBytes) {
      failSystem(EINVAL, name, "the constant lies outside its section");
    }
    memcpy(image + variable.offset, bytes.data(), bytes.size());
  }
}

void requireEqual(const std::string& subject, const char* what, uint32_t pinned, uint32_t wanted) {
  if (pinned == wanted) return;
  failSystem(EINVAL, subject,
             std::string("the pinned map does not fit: its ") + what + " is " +
                 std::to_string(pinned) + ", the object's is " + std::to_string(wanted));
}

void reuse(bpf_map* map, int fd, const std::string& subject) {
  if (bpfKind(fd) != BpfKind::kMap) failSystem(EINVAL, subject, "it is not a map");
  const bpf_map_info info = mapInfoOf(fd);
  requireEqual(subject, "type", info.type, bpf_map__type(map));
  requireEqual(subject, "key size", info.key_size, bpf_map__key_size(map));
  requireEqual(subject, "value size", info.value_size, bpf_map__value_size(map));
  requireEqual(subject, "flags", info.map_flags, bpf_map__map_flags(map));
  const int error = bpf_map__reuse_fd(map, fd);  // keeps a duplicate
  if (error != 0) failSystem(error, subject);
}

/** Takes the pinned map if there is one; false if there is none. */
bool reusePinned(bpf_map* map, const std::string& pinPath) {
  const std::string subject = std::string("map ") + bpf_map__name(map) + " at " + pinPath;
  const int opened = bpf_obj_get(pinPath.c_str());
  if (opened < 0) {
    if (opened == -ENOENT) return false;
    failSystem(opened, subject);
  }
  const UniqueFd fd(opened);
  if (bpfKind(fd.get()) != BpfKind::kMap) failSystem(EINVAL, subject, "the pin is not a map's");
  reuse(map, fd.get(), subject);
  return true;
}

/** name -> whether it was pinned already, for the maps that the object's programs share */
std::map<std::string, bool> prepareMaps(const bpf_object* object, const LoadRequest& request) {
  std::map<std::string, bool> reused;
  bpf_map* map;
  bpf_object__for_each_map(map, object) {
    if (bpf_map__is_internal(map)) continue;
    const std::string name = bpf_map__name(map);
    const auto shared = request.shared.find(name);
    if (shared != request.shared.end()) {
      reuse(map, shared->second, "map " + name);
      reused[name] = true;
      continue;
    }
    const std::string pinPath = request.pinDir + "/" + name;
    if (!request.pinDir.empty() && reusePinned(map, pinPath)) {
      // a LIBBPF_PIN_BY_NAME of the object itself would lead elsewhere
      bpf_map__set_pin_path(map, nullptr);
      reused[name] = true;
      continue;
    }
    reused[name] = false;
    int error = bpf_map__set_pin_path(map, request.pinDir.empty() ? nullptr : pinPath.c_str());
    const auto entries = request.maxEntries.find(name);
    if (error == 0 && entries != request.maxEntries.end()) {
      error = bpf_map__set_max_entries(map, entries->second);
    }
    if (error != 0) failSystem(error, "map " + name);
  }
  const auto requireMap = [&](const std::string& name) {
    if (reused.count(name) == 0) failRange("the object has no map named \"" + name + "\"");
  };
  for (const auto& each : request.maxEntries) requireMap(each.first);
  for (const auto& each : request.shared) requireMap(each.first);
  return reused;
}

void choosePrograms(const bpf_object* object, const LoadRequest& request) {
  if (request.programs.empty()) return;
  for (const std::string& name : request.programs) {
    if (bpf_object__find_program_by_name(object, name.c_str()) == nullptr) {
      failRange("the object has no program named \"" + name + "\"");
    }
  }
  bpf_program* program;
  bpf_object__for_each_program(program, object) {
    if (request.programs.count(bpf_program__name(program)) == 0) {
      bpf_program__set_autoload(program, false);
    }
  }
}

/** Descriptors that are closed unless they are all handed out. */
using NamedFds = std::map<std::string, UniqueFd>;

NamedFds programsOf(const bpf_object* object) {
  NamedFds programs;
  bpf_program* program;
  bpf_object__for_each_program(program, object) {
    if (!bpf_program__autoload(program)) continue;  // SEC("?tc"): not loaded on purpose
    programs[bpf_program__name(program)] = UniqueFd::duplicate(bpf_program__fd(program));
  }
  return programs;
}

/** What a file held when it was read: objects of it are the same, whatever takes its place
 * meanwhile. */
class ObjectFile {
 public:
  explicit ObjectFile(const std::string& path) : path_(path) {
    const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.valid()) failSystem(errno, path);
    ssize_t got = 0;
    do {
      const size_t end = bytes_.size();
      bytes_.resize(end + kChunkBytes);
      got = read(fd.get(), bytes_.data() + end, kChunkBytes);
      if (got < 0) failSystem(errno, path);
      bytes_.resize(end + static_cast<size_t>(got));
    } while (got > 0);
    // as libbpf makes it of a path
    const std::string file = path.substr(path.rfind('/') + 1);
    name_ = file.substr(0, file.find('.'));
  }

  ObjectPointer toObject() const;

 private:
  static constexpr size_t kChunkBytes = 1 << 20;
  std::string path_;
  std::string name_;
  std::vector<char> bytes_;
};

ObjectPointer ObjectFile::toObject() const {
  const LibbpfLog log;
  bpf_object_open_opts options{};
  options.sz = sizeof options;
  options.object_name = name_.c_str();
  ObjectPointer object(bpf_object__open_mem(bytes_.data(), bytes_.size(), &options));
  if (!object) log.fail(errno, path_);
  return object;
}

/**
 * The verifier gives up with EAGAIN when its thread has a signal to take. libbpf tries five times,
 * which a profiler's signals outlast, so this thread takes none meanwhile: those for the process go
 * to another thread, those for this one wait. What a fault of its own raises is left as it is.
 */
class SignalsLater {
 public:
  SignalsLater() {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) {
      sigdelset(&all, fault);
    }
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  SignalsLater(const SignalsLater&) = delete;
  SignalsLater& operator=(const SignalsLater&) = delete;
  ~SignalsLater() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

void loadObject(bpf_object* object, const LoadRequest& request) {
  const LibbpfLog log;
  const SignalsLater later;
  const int error = bpf_object__load(object);
  if (error != 0) log.fail(error, request.path);
}

/** These programs, on the maps of an object that is loaded. */
NamedFds loadBeside(const ObjectFile& file, const bpf_object* first, const LoadRequest& request,
                    const std::set<std::string>& programs) {
  const ObjectPointer object = file.toObject();
  bpf_map* map;
  bpf_object__for_each_map(map, object.get()) {
    if (bpf_map__is_internal(map)) continue;
    const bpf_map* made = bpf_object__find_map_by_name(first, bpf_map__name(map));
    const int error = made == nullptr ? -ENOENT : bpf_map__reuse_fd(map, bpf_map__fd(made));
    if (error != 0) failSystem(error, std::string("map ") + bpf_map__name(map));
    bpf_map__set_pin_path(map, nullptr);
  }
  setRodata(object.get(), request);
  bpf_program* program;
  bpf_object__for_each_program(program, object.get()) {
    bpf_program__set_autoload(program, programs.count(bpf_program__name(program)) != 0);
  }
  loadObject(object.get(), request);
  return programsOf(object.get());
}

/**
 * The object's maps first, then its programs by two threads: the kernel checks one at a time for
 * each. What is wanted of the object has been chosen.
 */
NamedFds loadByTwo(const ObjectFile& file, bpf_object* object, const LoadRequest& request) {
  std::set<std::string> ours, apart;
  bpf_program* program;
  bpf_object__for_each_program(program, object) {
    if (!bpf_program__autoload(program)) continue;
    const std::string name = bpf_program__name(program);
    (request.apart.count(name) != 0 ? apart : ours).insert(name);
    bpf_program__set_autoload(program, false);
  }
  loadObject(object, request);

  NamedFds programs, others;
  std::exception_ptr failure, otherFailure;
  const auto load = [&](const std::set<std::string>& names, NamedFds& loaded,
                        std::exception_ptr& failed) {
    try {
      if (!names.empty()) loaded = loadBeside(file, object, request, names);
    } catch (...) {
      failed = std::current_exception();
    }
  };
  std::thread beside;
  try {
    beside = std::thread([&] { load(apart, others, otherFailure); });
  } catch (const std::system_error&) {
    // no thread can be had: one after the other
    load(apart, others, otherFailure);
  }
  load(ours, programs, failure);
  if (beside.joinable()) beside.join();
  if (failure == nullptr) failure = otherFailure;
  if (failure != nullptr) {
    bpf_map* map;
    bpf_object__for_each_map(map, object) {
      if (bpf_map__is_pinned(map)) bpf_map__unpin(map, nullptr);
    }
    std::rethrow_exception(failure);
  }
  programs.merge(others);
  return programs;
}

Napi::Object handOut(Napi::Env env, NamedFds& fds) {
  Napi::Object object = Napi::Object::New(env);
  for (auto& [name, fd] : fds) object.Set(name, Napi::Number::New(env, fd.get()));
  return object;
}

}  // namespace

Napi::Value objectLoad(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const LoadRequest request = readRequest(info);
  const ObjectFile file(request.path);
  const ObjectPointer object = file.toObject();

  const auto reused = prepareMaps(object.get(), request);
  setRodata(object.get(), request);
  choosePrograms(object.get(), request);
  NamedFds programs;
  if (request.apart.empty()) {
    loadObject(object.get(), request);
    programs = programsOf(object.get());
  } else {
    programs = loadByTwo(file, object.get(), request);
  }
  NamedFds maps;
  Napi::Object reusedObject = Napi::Object::New(env);
  bpf_map* map;
  bpf_object__for_each_map(map, object.get()) {
    if (bpf_map__is_internal(map)) continue;
    maps[bpf_map__name(map)] = UniqueFd::duplicate(bpf_map__fd(map));
  }
  for (const auto& [name, wasPinned] : reused) {
    reusedObject.Set(name, Napi::Boolean::New(env, wasPinned));
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("programs", handOut(env, programs));
  result.Set("maps", handOut(env, maps));
  result.Set("reused", reusedObject);
  for (auto* fds : {&programs, &maps}) {
    for (auto& [name, fd] : *fds) fd.release();
  }
  return result;
}

Napi::Value objectGet(const Napi::CallbackInfo& info) {
  const std::string path = toPath(info[0], "pinPath");
  UniqueFd fd(bpf_obj_get(path.c_str()));
  if (!fd.valid()) failSystem(errno, path);
  const BpfKind kind = bpfKind(fd.get());
  if (kind != BpfKind::kMap && kind != BpfKind::kProgram) {
    failSystem(EINVAL, path, "the pin is neither a map's nor a program's");
  }
  return Napi::Number::New(info.Env(), fd.release());
}

Napi::Value objectPin(const Napi::CallbackInfo& info) {
  const int fd = toFd(info[0], "fd");
  const std::string path = toPath(info[1], "pinPath");
  const int error = bpf_obj_pin(fd, path.c_str());
  if (error != 0) failSystem(error, path);
  return info.Env().Undefined();
}

Napi::Value programInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const ProgramInfo program = programInfoOf(toFd(info[0], "progFd"));
  Napi::Array mapIds = Napi::Array::New(env, program.mapIds.size());
  uint32_t at = 0;
  for (const uint32_t id : program.mapIds) mapIds.Set(at++, Napi::Number::New(env, id));
  Napi::Object result = Napi::Object::New(env);
  result.Set("id", Napi::Number::New(env, program.id));
  result.Set("name", Napi::String::New(env, program.name));
  result.Set("mapIds", mapIds);
  result.Set("jited", Napi::Boolean::New(env, program.jited));
  return result;
}

}  // namespace vnetd
