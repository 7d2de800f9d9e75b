#include "apps/virga/resource.h"

#include <fmt/format.h>

#include "apps/virga/text.h"
#include "apps/virga/values.h"

namespace virga::cli {
namespace {

/// Help texts that are put together live as long as the program.
std::string_view keep(std::string text) {
  static std::vector<std::unique_ptr<std::string>> all;
  all.push_back(std::make_unique<std::string>(std::move(text)));
  return *all.back();
}

json::object pick(const json::object& object, const std::vector<std::string_view>& names) {
  json::object out;
  for (auto name : names)
    if (const auto* value = object.if_contains(name)) out[name] = *value;
  return out;
}

}  // namespace

std::string Resource::title() const {
  std::string out(noun);
  out[0] = upper(noun.substr(0, 1))[0];
  return out;
}

json::object editable_part(const Resource& resource, const json::object& object) {
  return pick(object, resource.editable);
}

Result<> update(App& app, const Resource& resource, const std::string& name, const std::function<Result<>(json::object&)>& change) {
  VIRGA_TRY(auto* api, app.api());
  std::string etag;
  const auto url = resource.url(app, name);
  VIRGA_TRY(auto object, api->object(url, &etag));
  auto editable = editable_part(resource, object);
  VIRGA_CHECK(change(editable));
  VIRGA_CHECK(api->send("PUT", url, std::move(editable), etag));
  return {};
}

std::string setting_text(const json::object& config, const std::string& key) {
  return text_of(config, key);
}

Result<> apply_settings(json::object& editable, const KeyValues& settings, bool property) {
  for (const auto& [key, value] : settings) {
    if (property) {
      VIRGA_CHECK(set_property(editable, key, value));
    } else {
      map_in(editable, "config")[key] = value;
    }
  }
  return {};
}

Result<> remove_setting(json::object& editable, const std::string& key, bool property) {
  if (property) return set_property(editable, key, "");
  if (map_in(editable, "config").erase(key) == 0)
    return fail(ErrorKind::not_found, fmt::format("Can't unset key '{}', it's not currently set", key));
  return {};
}

Command show_command(const Resource& r) {
  return {.use = keep(fmt::format("show [<remote>:]<{}>", r.word)),
          .summary = keep(fmt::format("Show {} configurations", r.noun)),
          .least = 1,
          .most = 1,
          .run = [r](App& app, const Args& args) -> Result<> {
            VIRGA_TRY(auto name, local_name(args[0]));
            VIRGA_TRY(auto* api, app.api());
            VIRGA_TRY(auto object, api->object(r.url(app, name)));
            auto shown = pick(object, r.shown);
            if (auto* used = shown.if_contains("used_by"); used != nullptr && used->is_null()) *used = json::array();
            app.print(as_yaml(shown));
            return {};
          }};
}

Command get_command(const Resource& r) {
  return {.use = keep(fmt::format("get [<remote>:]<{}> <key>", r.word)),
          .summary = keep(fmt::format("Get values for {} configuration keys", r.noun)),
          .flags = {{"property", 'p', Flag::boolean, keep(fmt::format("Get the key as a {} property", r.noun))}},
          .least = 2,
          .most = 2,
          .run = [r](App& app, const Args& args) -> Result<> {
            VIRGA_TRY(auto name, local_name(args[0]));
            VIRGA_TRY(auto* api, app.api());
            VIRGA_TRY(auto object, api->object(r.url(app, name)));
            std::string text = setting_text(object_of(object, "config"), args[1]);
            if (args.has("property")) {
              VIRGA_TRY(text, property_text(object, args[1]));
            }
            app.print(text + "\n");
            return {};
          }};
}

Command set_command(const Resource& r) {
  return {
      .use = keep(fmt::format("set [<remote>:]<{}> <key>=<value>...", r.word)),
      .summary = keep(fmt::format("Set {} configuration keys", r.noun)),
      .description =
          keep(fmt::format("A single key may also be set with:\n    virga {} set [<remote>:]<{}> <key> <value>", r.group, r.word)),
      .flags = {{"property", 'p', Flag::boolean, keep(fmt::format("Set the key as a {} property", r.noun))}},
      .least = 2,
      .most = any_number,
      .run = [r](App& app, const Args& args) -> Result<> {
        VIRGA_TRY(auto name, local_name(args[0]));
        VIRGA_TRY(auto settings, parse_settings({args.words.begin() + 1, args.words.end()}));
        return update(app, r, name, [&](json::object& object) { return apply_settings(object, settings, args.has("property")); });
      }};
}

Command unset_command(const Resource& r) {
  return {.use = keep(fmt::format("unset [<remote>:]<{}> <key>", r.word)),
          .summary = keep(fmt::format("Unset {} configuration keys", r.noun)),
          .flags = {{"property", 'p', Flag::boolean, keep(fmt::format("Unset the key as a {} property", r.noun))}},
          .least = 2,
          .most = 2,
          .run = [r](App& app, const Args& args) -> Result<> {
            VIRGA_TRY(auto name, local_name(args[0]));
            return update(app, r, name,
                          [&](json::object& object) { return remove_setting(object, args[1], args.has("property")); });
          }};
}

Command edit_command(const Resource& r) {
  return {
      .use = keep(fmt::format("edit [<remote>:]<{}>", r.word)),
      .summary = keep(fmt::format("Edit {} configurations as YAML", r.noun)),
      .examples = keep(
          fmt::format("virga {0} edit <{1}> < {1}.yaml\n    Update a {2} using the content of {1}.yaml", r.group, r.word, r.noun)),
      .least = 1,
      .most = 1,
      .run = [r](App& app, const Args& args) -> Result<> {
        VIRGA_TRY(auto name, local_name(args[0]));
        VIRGA_TRY(auto* api, app.api());
        std::string etag;
        const auto url = r.url(app, name);
        VIRGA_TRY(auto object, api->object(url, &etag));
        auto shown = pick(object, r.shown);
        auto help = fmt::format(
            "This is a YAML representation of the {} '{}'.\nLines that begin with '#' are ignored. The fields {} can be changed.",
            r.noun, name, fmt::join(r.editable, ", "));
        return edit_document(app, shown, help, [&](json::object document) -> Result<> {
          VIRGA_CHECK(api->send("PUT", url, editable_part(r, document), stdin_is_terminal() ? etag : std::string()));
          return {};
        });
      }};
}

Command delete_command(const Resource& r) {
  return {.use = keep(fmt::format("delete [<remote>:]<{}>", r.word)),
          .summary = keep(fmt::format("Delete {}s", r.noun)),
          .aliases = {"rm"},
          .least = 1,
          .most = 1,
          .run = [r](App& app, const Args& args) -> Result<> {
            VIRGA_TRY(auto name, local_name(args[0]));
            VIRGA_TRY(auto* api, app.api());
            VIRGA_CHECK(api->send("DELETE", r.url(app, name)));
            app.note(fmt::format("{} {} deleted", r.title(), name));
            return {};
          }};
}

Command rename_command(const Resource& r) {
  return {.use = keep(fmt::format("rename [<remote>:]<{}> <new-name>", r.word)),
          .summary = keep(fmt::format("Rename {}s", r.noun)),
          .aliases = {"mv"},
          .least = 2,
          .most = 2,
          .run = [r](App& app, const Args& args) -> Result<> {
            VIRGA_TRY(auto name, local_name(args[0]));
            VIRGA_TRY(auto* api, app.api());
            VIRGA_CHECK(api->send("POST", r.url(app, name), json::object{{"name", args[1]}}));
            app.note(fmt::format("{} {} renamed to {}", r.title(), name, args[1]));
            return {};
          }};
}

}  // namespace virga::cli
