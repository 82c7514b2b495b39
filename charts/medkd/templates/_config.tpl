{{/* The whole model_configs.json with the overrides merged, as JSON. Numbers pass through as 64-bit floats, as
     most readers of JSON take them anyway; whole numbers that would lose digits are refused. */}}
{{- define "medkd.models" -}}
{{- $text := .Values.models.configs | default (.Files.Get "files/model_configs.json") -}}
{{- if not $text -}}
{{- fail "files/model_configs.json: missing from this chart (a symlink that was dropped?); pass --set-file models.configs=PATH" -}}
{{- end -}}
{{- if regexMatch "[\\s:,\\[]-?[0-9]{16,}[\\s,}\\]]" $text -}}
{{- fail "models.configs: has a whole number of 16 digits or more, which would lose digits on its way; shorten it" -}}
{{- end -}}
{{- $models := fromJson $text -}}
{{- if and (hasKey $models "Error") (not (hasKey $models "student_models")) -}}
{{- fail (printf "models.configs: not a JSON object (%s)" $models.Error) -}}
{{- end -}}
{{- range $table := list "teacher_models" "student_models" "generation_settings" -}}
{{- if not (kindIs "map" (index $models $table)) -}}
{{- fail (printf "models.configs: %s is missing or no object" $table) -}}
{{- end -}}
{{- end -}}
{{- include "medkd.merge" (dict "target" $models "overrides" .Values.models.overrides) -}}
{{- toJson $models -}}
{{- end }}

{{/* Put overrides into target, in place: objects key by key, all else replaced, be it false, 0 or an empty list. */}}
{{- define "medkd.merge" -}}
{{- $target := .target -}}
{{- range $key, $value := .overrides -}}
{{- if and (kindIs "map" $value) (kindIs "map" (index $target $key)) -}}
{{- include "medkd.merge" (dict "target" (index $target $key) "overrides" $value) -}}
{{- else -}}
{{- $_ := set $target $key $value -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A stage's slice of the configuration: the run's teacher and its judge where they are asked, the run's student. Takes a dict:
     root, stage. */}}
{{- define "medkd.slice" -}}
{{- $models := include "medkd.models" .root | fromJson -}}
{{- $teachers := dict -}}
{{- if has .stage (list "plan" "generate") -}}
{{- $teachers = pick $models.teacher_models (include "medkd.teacher" .root) -}}
{{- with (($models.generation_settings).judges).teacher -}}
{{- $teachers = merge $teachers (pick $models.teacher_models .) -}}
{{- end -}}
{{- end -}}
{{- $students := pick $models.student_models .root.Values.student.name -}}
{{- $slice := dict "teacher_models" $teachers "student_models" $students "generation_settings" $models.generation_settings -}}
{{- merge $slice (pick $models "bars" "evaluate") | toPrettyJson -}}
{{- end }}

{{/* The teacher's name; a run that asks none needs one only by name. */}}
{{- define "medkd.teacher" -}}
{{- .Values.teacher.name | default "simulator" -}}
{{- end }}

{{/* "true" where samples cost calls to a teacher. */}}
{{- define "medkd.asksTeacher" -}}
{{- if not (or (and .Values.conversations.files .Values.conversations.recordColumn) (eq (include "medkd.shards" .) "0")) }}true{{ end -}}
{{- end }}

{{/* Shards of the run: none where its data set is wholly another run's. */}}
{{- define "medkd.shards" -}}
{{- if and .Values.dataset.from (not .Values.conversations.files) (kindIs "invalid" .Values.plan.numSamples) }}0{{ else }}{{ int64 .Values.generate.shards }}{{ end -}}
{{- end }}

{{/* yes, no, or nothing where nobody has said it. YAML reads a bare yes as true. */}}
{{- define "medkd.containsPhi" -}}
{{- $said := .Values.conversations.containsPhi -}}
{{- if kindIs "bool" $said }}{{ ternary "yes" "no" $said }}{{ else }}{{ $said }}{{ end -}}
{{- end }}

{{/* GPUs of the pod that evaluates. */}}
{{- define "medkd.evaluateGpus" -}}
{{- if kindIs "invalid" .Values.evaluate.gpus }}{{ int .Values.train.gpusPerNode }}{{ else }}{{ int .Values.evaluate.gpus }}{{ end -}}
{{- end }}

{{/* Bytes of a quantity such as 1.5Gi, 500M or 1024. */}}
{{- define "medkd.bytes" -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- $text := toString . -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (index $units (regexFind "[A-Za-z]*$" $text) | default 1) | int64 -}}
{{- end }}

{{/* Billions of parameters of the run's student as its name or architecture says, 0 where neither does. */}}
{{- define "medkd.billions" -}}
{{- $student := index (include "medkd.models" . | fromJson).student_models .Values.student.name -}}
{{- with $student.architecture -}}
{{- divf (mulf 12 (float64 .layers) (float64 .width) (float64 .width)) 1e9 -}}
{{- else -}}
{{- $name := lower $student.model_name -}}
{{- $said := regexFind "[0-9]+(\\.[0-9]+)?b([^a-z0-9]|$)" $name -}}
{{- if $said -}}
{{- regexFind "^[0-9.]+" $said -}}
{{- else if regexMatch "(^|[-_/])x?xl$" $name -}}
1.5
{{- else -}}
0
{{- end -}}
{{- end -}}
{{- end }}
